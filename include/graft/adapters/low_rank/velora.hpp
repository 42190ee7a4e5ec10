#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/low_rank/lora_factors.hpp"
#include "graft/autograd/ops/compressed_matmul.hpp"

namespace graft::inline v0_1 {

/// `velora_config` of LoRA's configuration, names as in PEFT.
struct VeLoRAConfig {
  Index groups = 64;
  double scale = 1;                    ///< of the activation that is built again
  std::string init = "batch_average";  ///< also batch_average_once, random

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_groups", groups);
    v("scale", scale);
    v("init_type", init);
  }
  void validate() const {
    if (groups < 1)
      throw ValueError(concat("VeLoRA: num_groups ", groups, ", expected at least 1"));
    if (!(scale > 0)) throw ValueError(concat("VeLoRA: scale ", scale, ", expected more than 0"));
    if (init != "batch_average" && init != "batch_average_once" && init != "random")
      throw ValueError(concat("VeLoRA: init_type '", init,
                              "', expected batch_average, batch_average_once or random"));
  }
};

/// VeLoRA: LoRA that keeps a compressed input for the gradient of A: pieces c of x, `num_groups` a
/// row, are kept as v · c and stand for scale · v (v · c) in dA. Values and all other gradients are
/// LoRA's.
///
/// v: [⌈in / num_groups⌉] of length one, not trained: the normalised mean of all pieces of the
/// batch, of the first batch only, or random. Shapes, count, init and merging as LoRA. Source:
/// Miles et al. 2024 (arXiv:2405.17991), eq. 3 to 5. A mean of zero gives v = 1/√p, as in PEFT. A
/// checkpoint with v ≠ 0 counts as started (PEFT would take another first batch). Tensors: as LoRA,
/// lora_velora_embed.
template <std::floating_point T>
class BasicVeLoRA {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  BasicVeLoRA(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : factors_("velora_config", config, site, context),
        options_(nested_config<VeLoRAConfig>("velora_config", config.velora_config)) {
    const Index p = (site.in_features + options_.groups - 1) / options_.groups;
    auto v = BasicTensor<T>::zeros({p});
    if (options_.init == "random" && !context.loading) {
      v = detail::normal_tensor<T>(context.generator, {p}, 1);
      normalise(v);
    }
    v_ = BasicParameter<T>(v, false);
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto a = tape.parameter(factors_.a), b = tape.parameter(factors_.b);
    const auto dropped = graft::dropout(x, factors_.dropout);
    if (!tape.training() || !tape.gradients())
      return factors_.with_bias(linear_low_rank(base, x, dropped, a, b, factors_.scaling));
    update_vector(dropped.value());
    const auto h =
        compressed_matmul(dropped, a, v_.value(), options_.groups, static_cast<T>(options_.scale));
    return factors_.with_bias(add(linear(base, x), matmul(graft::scale(h, factors_.scaling), b,
                                                          Transpose::no, Transpose::yes)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    auto list = factors_.tensors();
    list.push_back({.name = "lora_velora_embed", .parameter = v_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  static void normalise(BasicTensor<T>& v) {
    T squares = kernels::dot(v.data(), v.data(), v.size());
    if (squares == 0) {
      v.fill(1);
      squares = static_cast<T>(v.size());
    }
    for (T& e : v) e /= std::sqrt(squares);
  }
  void update_vector(const BasicTensor<T>& x) const {
    if (options_.init == "random") return;
    const auto known = v_.value();
    if (options_.init == "batch_average_once" &&
        std::any_of(known.begin(), known.end(), [](T e) { return e != 0; }))
      return;
    const Index in = x.cols(), p = known.size();
    auto v = BasicTensor<T>::zeros({p});
    for (Index r = 0; r < x.rows(); ++r)
      for (Index i = 0; i < in; ++i) v[i % p] += x.data()[r * in + i];
    const T pieces = static_cast<T>(x.rows() * options_.groups);
    for (T& e : v) e /= pieces;
    normalise(v);
    v_.assign(v);
  }

  LoRAFactors<T> factors_;
  VeLoRAConfig options_;
  BasicParameter<T> v_;
};

using VeLoRA = BasicVeLoRA<float>;

}  // namespace graft::inline v0_1
