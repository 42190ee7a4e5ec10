#pragma once

#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of BEFT, fields as PEFT's BeftConfig.
struct BEFTConfig {
  TargetModules target_modules = {};
  bool init_weights = true;  ///< zeros; false: N(0, 1)
  Selection select = {};

  static constexpr const char* kPeftType = "BEFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("target_modules", target_modules);
    v("init_weights", init_weights);
    v("modules_to_save", select.modules_to_save);
  }
};

/// BEFT: y = base(x) + β.
///
/// β: [1, out]; trained: out. The identity at the start. Merges into the bias.
/// Source: arXiv:2509.15974, the bias of the value projection alone. Tensor: beft_bias.
template <std::floating_point T>
class BasicBEFT {
 public:
  using Scalar = T;
  using Config = BEFTConfig;

  static MethodInfo info() {
    return {.peft_type = "BEFT",
            .name = "BEFT",
            .family = "elementwise",
            .paper = "arXiv:2509.15974",
            .sites = "linear",
            .parameters = "out"};
  }

  BasicBEFT(const BEFTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context) {
    auto bias = BasicTensor<T>::zeros({site.out_features});
    if (!config.init_weights && !context.loading)
      context.generator.normal(bias.data(), bias.size(), 0, 1);
    bias_ = BasicParameter<T>(std::move(bias));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicBEFT(const BEFTConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicBEFT(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return add(linear(base, x), x.tape().parameter(bias_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back(
        {.name = "beft_bias", .parameter = bias_, .index = {}, .file_shape = {1, bias_.size()}});
    return list;
  }

 private:
  BasicParameter<T> bias_;
};

using BEFT = BasicBEFT<float>;

}  // namespace graft::inline v0_1
