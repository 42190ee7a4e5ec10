#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/sparse/dotted_pattern.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/autograd/ops/block_circulant.hpp"

namespace graft::inline v0_1 {

/// Configuration of C3A, fields as PEFT's C3AConfig.
struct C3AConfig {
  Index block_size = 256;  ///< divides in and out
  std::map<std::string, ConfigValue> block_size_pattern = {};
  ConfigValue init_weights = "xavier_uniform";  ///< also false; true: zeros; "gaussian": N(0, 1);
                                                ///< "kaiming_uniform": U(±1/√in)
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "C3A";

  template <class Visitor>
  void fields(Visitor& v) {
    v("block_size", block_size);
    v("block_size_pattern", block_size_pattern);
    v("init_weights", init_weights);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.exclude_modules = false, .rank_pattern = false, .alpha_pattern = false});
  }
};

/// C3A: y = base(x) + x ΔWᵀ, ΔW of circulant blocks of size b: ΔW[m b + t, n b + j] = w[m, n, (j −
/// t) mod b] / in.
///
/// w: [out/b, in/b, b]; trained: in · out / b. Multiplied in the frequency domain, ΔW is not
/// written out. Not the identity at the start except for init_weights true (PEFT's default draws
/// U(±√(6 / (in + out)))); merges. Source: Chen et al. 2024 (arXiv:2407.19342), eq. 3–5. Deviations
/// from PEFT 0.21.2: the gradient of x is the right one (PEFT's is not the transpose of its forward
/// pass), and several adapters add up (in PEFT the second reads what the first made). Tensor:
/// c3a_kernel.
template <std::floating_point T>
class BasicC3A {
 public:
  using Scalar = T;
  using Config = C3AConfig;

  static MethodInfo info() {
    return {.peft_type = "C3A",
            .name = "C3A",
            .family = "sparse",
            .paper = "arXiv:2407.19342",
            .sites = "linear",
            .parameters = "in out / block_size",
            .identity_at_init = false};
  }

  /// @throws ValueError if the block size does not divide in and out, or for an unknown init.
  BasicC3A(const C3AConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : scale_(T{1} / static_cast<T>(site.in_features)) {
    const Index in = site.in_features, out = site.out_features;
    const auto own = detail::dotted_pattern_value(config.block_size_pattern, site.path);
    const Index b = own ? static_cast<Index>(own->number()) : config.block_size;
    if (b < 1 || in % b != 0 || out % b != 0)
      throw ValueError(concat("C3A: block_size ", b, " does not divide both ", in, " inputs and ",
                              out, " outputs of ", site.path));
    auto w = BasicTensor<T>::zeros({out / b, in / b, b});
    const bool zeros = config.init_weights == ConfigValue(true),
               gaussian = config.init_weights == ConfigValue("gaussian"),
               kaiming = config.init_weights == ConfigValue("kaiming_uniform");
    if (!zeros && !gaussian && !kaiming && config.init_weights != ConfigValue(false) &&
        config.init_weights != ConfigValue("xavier_uniform"))
      throw ValueError(
          "C3A: init_weights expected true, false, \"xavier_uniform\", \"gaussian\" or "
          "\"kaiming_uniform\"");
    if (!zeros && !context.loading) {
      const auto sum = static_cast<double>(in + out);
      const double bound =
          kaiming ? std::sqrt(1.0 / static_cast<double>(in)) : std::sqrt(6.0 / sum);
      if (gaussian)
        context.generator.normal(w.data(), w.size());
      else
        context.generator.uniform(w.data(), w.size(), -bound, bound);
    }
    kernel_ = BasicParameter<T>(std::move(w));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicC3A(const C3AConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicC3A(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto w = scale(x.tape().parameter(kernel_), scale_);
    return add(linear(base, x), block_circulant(x, w));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(1);
    list[0].name = "c3a_kernel";
    list[0].parameter = kernel_;
    return list;
  }

 private:
  T scale_;
  BasicParameter<T> kernel_;
};

using C3A = BasicC3A<float>;

}  // namespace graft::inline v0_1
