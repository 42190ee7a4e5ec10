#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/named_activation.hpp"
#include "graft/adapters/root.hpp"
#include "graft/layers/transposed_linear.hpp"

namespace graft::inline v0_1 {

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
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
  void validate() const;
};

/// @throws ValueError for sizes that cannot be or an unknown activation.
inline void PEANuTConfig::validate() const {
  if (rank < 1 || depth < 0)
    throw ValueError(
        concat("PEANuT: r ", rank, " and depth ", depth, ", expected at least 1 and 0"));
  detail::require_activation("PEANuT", act_fn);
}

/// PEANuT: the update is a small network of the frozen weight: H₀ = φ(Wᵀ Aᵀ); `depth` encoders H ←
/// φ(H Eᵀ), then as many decoders H ← φ(H Dᵀ) + the H before the encoder that belongs to it; ΔW = s
/// B Hᵀ.
///
/// A: [r, out], B: [out, r], E and D: [r, r]; trained: 2 r out + 2 depth r². The identity at the
/// start (B = 0); merges. y = base(x) + s (x H) Bᵀ, with A W from the base's own product. Source:
/// arXiv:2410.01870, section 3.2. W is the frozen weight below all adapters. Tensors:
/// peanut_A.weight, peanut_B.weight, `peanut_encoders.<i>.weight`, `peanut_decoders.<i>.weight`.
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
      return detail::kaiming_uniform_tensor<T>(context, shape, shape[1]);
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

}  // namespace graft::inline v0_1
