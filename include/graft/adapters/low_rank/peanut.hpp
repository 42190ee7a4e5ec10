#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/root.hpp"
#include "graft/layers/transposed_linear.hpp"

namespace graft {

/// Configuration of PEANuT, fields as PEFT's PeanutConfig.
struct PEANuTConfig {
  Index rank = 32;
  Index depth = 0;              ///< pairs of an encoder and a decoder
  std::string act_fn = "relu";  ///< a name of the transformers library
  double scaling = 1;
  bool init_weights = true;  ///< B = 0; false: B random too
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "PEANUT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("depth", depth);
    v("act_fn", act_fn);
    v("scaling", scaling);
    v("init_weights", init_weights);
    v("target_modules", target_modules);
    select.fields(v);
  }
  void validate() const;
};

namespace detail {

/// Activation by the name that the transformers library gives it; false if there is none.
template <std::floating_point T>
bool named_activation(std::string_view name, const BasicVar<T>& x, BasicVar<T>& y) {
  using A = kernels::Activation;
  if (name == "relu") {
    y = activation(A::relu, x);
  } else if (name == "gelu" || name == "gelu_python") {
    y = activation(A::gelu, x);
  } else if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_python_tanh" ||
             name == "gelu_fast" || name == "gelu_accurate") {
    y = activation(A::gelu_tanh, x);
  } else if (name == "gelu_10") {
    y = clamp(activation(A::gelu, x), T{-10}, T{10});
  } else if (name == "silu" || name == "swish") {
    y = activation(A::silu, x);
  } else if (name == "sigmoid") {
    y = activation(A::sigmoid, x);
  } else if (name == "tanh") {
    y = activation(A::tanh, x);
  } else if (name == "quick_gelu") {
    y = activation(A::quick_gelu, x);
  } else if (name == "linear") {
    y = x;
  } else if (name == "leaky_relu") {
    y = unary(
        x, [](T v) { return v > 0 ? v : v / 100; },
        [](T v, T) { return v > 0 ? T{1} : T{1} / 100; });
  } else if (name == "relu2") {
    y = square(activation(A::relu, x));
  } else if (name == "relu6") {
    y = clamp(x, T{0}, T{6});
  } else if (name == "mish") {
    y = mul(x, activation(A::tanh, softplus(x)));
  } else if (name == "hardswish") {
    y = mul(x, scale(clamp(add_scalar(x, 3), T{0}, T{6}), T{1} / 6));
  } else {
    return false;
  }
  return true;
}

}  // namespace detail

/// @throws ValueError for sizes that cannot be or an unknown activation.
inline void PEANuTConfig::validate() const {
  if (rank < 1 || depth < 0)
    throw ValueError(
        concat("PEANuT: r ", rank, " and depth ", depth, ", expected at least 1 and 0"));
  BasicTape<float> tape({.gradients = false});
  BasicVar<float> y;
  if (!detail::named_activation(act_fn, tape.constant(BasicTensor<float>::zeros({1})), y))
    throw ValueError(concat("PEANuT: act_fn '", act_fn, "' is not known"));
}

/// PEANuT: the update is a small network of the frozen weight: H₀ = φ(Wᵀ Aᵀ); `depth` encoders H ←
/// φ(H Eᵀ), then as many decoders H ← φ(H Dᵀ) + the H before the encoder that belongs to it; ΔW = s
/// B Hᵀ.
///
/// A: [r, out], B: [out, r], E and D: [r, r]; trained: 2 r out + 2 depth r². The identity at the
/// start (B = 0); merges. y = base(x) + s (x H) Bᵀ, with A W from the base's own product. Source:
/// arXiv:2410.01870, section 3.2. W is the frozen weight below all adapters. Tensors:
/// peanut_A.weight, peanut_B.weight, peanut_encoders.<i>.weight, peanut_decoders.<i>.weight.
template <std::floating_point T>
class BasicPEANuT {
 public:
  using Scalar = T;
  using Config = PEANuTConfig;

  static MethodInfo info() {
    return {.peft_type = "PEANUT",
            .name = "PEANuT",
            .family = "low_rank",
            .paper = "arXiv:2410.01870",
            .sites = "linear",
            .parameters = "2 r out + 2 depth r^2"};
  }

  BasicPEANuT(const PEANuTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_((config.validate(), config)) {
    const Index r = config.rank, out = site.out_features;
    const auto depth = static_cast<std::size_t>(config.depth);
    const auto draw = [&](const Shape& shape) {
      return context.loading
                 ? BasicTensor<T>::zeros(shape)
                 : detail::kaiming_uniform_tensor<T>(context.generator, shape, shape[1]);
    };
    // The layers draw once for themselves, then in this order.
    draw({r, out});
    for (std::size_t i = 0; i < 2 * depth; ++i) draw({r, r});
    draw({out, r});
    a_ = BasicParameter<T>(draw({r, out}));
    for (std::size_t i = 0; i < depth; ++i) encoders_.emplace_back(draw({r, r}));
    for (std::size_t i = 0; i < depth; ++i) decoders_.emplace_back(draw({r, r}));
    b_ = BasicParameter<T>(config.init_weights ? BasicTensor<T>::zeros({out, r}) : draw({out, r}));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicPEANuT(const PEANuTConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicPEANuT(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto phi = [&](const BasicVar<T>& v) {
      BasicVar<T> y;
      detail::named_activation(config_.act_fn, v, y);
      return y;
    };
    // Everything transposed: H is [r, in] here.
    auto h = phi(transposed_linear(detail::root_of(base), tape.parameter(a_)));
    std::vector<BasicVar<T>> before;
    for (const auto& e : encoders_) {
      before.push_back(h);
      h = phi(matmul(tape.parameter(e), h));
    }
    for (const auto& d : decoders_) {
      h = add(phi(matmul(tape.parameter(d), h)), before.back());
      before.pop_back();
    }
    return linear_low_rank(base, x, x, h, tape.parameter(b_), static_cast<T>(config_.scaling));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](std::string name, const BasicParameter<T>& p) {
      list.push_back({.name = std::move(name), .parameter = p, .index = {}, .file_shape = {}});
    };
    put("peanut_A.weight", a_);
    for (std::size_t i = 0; i < encoders_.size(); ++i)
      put(concat("peanut_encoders.", i, ".weight"), encoders_[i]);
    for (std::size_t i = 0; i < decoders_.size(); ++i)
      put(concat("peanut_decoders.", i, ".weight"), decoders_[i]);
    put("peanut_B.weight", b_);
    return list;
  }

 private:
  PEANuTConfig config_;
  BasicParameter<T> a_, b_;
  std::vector<BasicParameter<T>> encoders_, decoders_;
};

using PEANuT = BasicPEANuT<float>;

}  // namespace graft
