#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1 {

/// Configuration of (IA)³, fields as PEFT's IA3Config.
struct IA3Config {
  TargetModules target_modules = {};
  /// Modules whose input is scaled instead of the output: ends of paths (no dot needed in front),
  /// or one path.
  TargetModules feedforward_modules = {};
  bool fan_in_fan_out = false;
  bool init_ia3_weights = true;  ///< ones; false: N(0, 1)
  Selection select = {};

  static constexpr const char* kPeftType = "IA3";

  template <class Visitor>
  void fields(Visitor& v) {
    v("target_modules", target_modules);
    v("feedforward_modules", feedforward_modules);
    v("fan_in_fan_out", fan_in_fan_out);
    v("init_ia3_weights", init_ia3_weights);
    v("exclude_modules", select.exclude_modules);
    v("modules_to_save", select.modules_to_save);
  }
};

/// (IA)³: y = l ⊙ base(x), bias included, or y = base(l ⊙ x) at the modules called feed-forward.
///
/// l: [out, 1] or [1, in]; of a convolution [1, channels, 1, …]. Trained: out, or in, or channels.
/// Ones at the start: the identity. Merges: the rows of W and the bias times l, or the columns of W
/// times l. Source: Liu et al. 2022 (arXiv:2205.05638), section 3.3. Deviation: the bias is scaled
/// as PEFT does; the paper's model has none. Tensor: ia3_l.
template <std::floating_point T>
class BasicIA3 {
 public:
  using Scalar = T;
  using Config = IA3Config;

  static MethodInfo info() {
    return {.peft_type = "IA3",
            .name = "(IA)³",
            .family = "elementwise",
            .paper = "arXiv:2205.05638",
            .sites = "linear, conv",
            .parameters = "out; in where feed-forward"};
  }

  BasicIA3(const IA3Config& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : kernel_(site.conv.kernel_elements()),
        axes_(site.conv.kernel.size()),
        inputs_(site.in_features / kernel_),
        outputs_(site.out_features) {
    act_on(feedforward(config, site.path));
    if (!config.init_ia3_weights && !context.loading) {
      auto l = BasicTensor<T>::empty(l_.shape());
      context.generator.normal(l.data(), l.size(), 0, 1);
      l_.assign(std::move(l));
    }
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicIA3(const IA3Config& config, const L& base, std::uint64_t seed = 0)
      : BasicIA3(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto l = x.tape().parameter(l_);
    if (!input_) return mul(linear(base, x), l);
    if (kernel_ > 1)  // one factor a channel, over all positions of the kernel
      l = reshape(broadcast_to(reshape(l, {l_.size(), 1}), {l_.size(), kernel_}),
                  {l_.size() * kernel_});
    return linear(base, mul(x, l));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back(
        {.name = "ia3_l", .parameter = l_, .index = {}, .file_shape = file_shape(input_)});
    return list;
  }
  /// In PEFT a layer stays what its first adapter made it: the file tells which side is scaled.
  void before_load(const CheckpointShapes& shapes) {
    const auto* shape = shapes("ia3_l");
    if (shape != nullptr && *shape != file_shape(input_) && *shape == file_shape(!input_))
      act_on(!input_);
  }
  bool scales_input() const { return input_; }

 private:
  static bool feedforward(const IA3Config& config, const std::string& path) {
    if (!config.feedforward_modules.pattern.empty())
      return full_match(config.feedforward_modules.pattern, path);
    const auto& names = config.feedforward_modules.names;
    return std::any_of(names.begin(), names.end(),
                       [&](const auto& name) { return path.ends_with(name); });
  }

  void act_on(bool input) {
    input_ = input;
    l_ = BasicParameter<T>(BasicTensor<T>::full({input ? inputs_ : outputs_}, T{1}));
  }
  Shape file_shape(bool input) const {
    const Index count = input ? inputs_ : outputs_;
    if (axes_ == 0) return input ? Shape{1, count} : Shape{count, 1};
    Shape shape{1, count};
    for (std::size_t i = 0; i < axes_; ++i) shape.append(1);
    return shape;
  }

  Index kernel_;
  std::size_t axes_;  ///< of a convolution
  Index inputs_, outputs_;
  bool input_ = false;
  BasicParameter<T> l_;
};

using IA3 = BasicIA3<float>;

}  // namespace graft::inline v0_1
