#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/prompts/prompt_table.hpp"

namespace graft::inline v0_1 {

/// Configuration of black-box visual prompting; the fields of SPSA are those of SpsaConfig.
struct BlackvipConfig {
  Index feature_dim = 768;  ///< of the frozen encoder's output
  Index trigger_dim = 800;
  Index seed_side = 7;  ///< side of the image that features and trigger are reshaped to
  /// Output channels of the transposed and of the 1×1 convolution of each stage.
  std::vector<std::vector<Index>> channels = {{64, 64}, {64, 32}, {32, 32}, {32, 16}};
  double epsilon = 1;
  std::vector<double> pixel_range;  ///< lowest and highest pixel; empty: no limits
  double spsa_a = 0.01, spsa_c = 0.01, spsa_o = 1, spsa_alpha = 0.4, spsa_gamma = 0.1;
  double momentum = 0.9;
  Index num_estimates = 5;
  bool rademacher = false;

  static constexpr const char* kPeftType = "BLACKVIP";

  template <class Visitor>
  void fields(Visitor& v) {
    v("feature_dim", feature_dim);
    v("trigger_dim", trigger_dim);
    v("seed_side", seed_side);
    v("channels", channels);
    v("epsilon", epsilon);
    v("pixel_range", pixel_range);
    v("spsa_a", spsa_a);
    v("spsa_c", spsa_c);
    v("spsa_o", spsa_o);
    v("spsa_alpha", spsa_alpha);
    v("spsa_gamma", spsa_gamma);
    v("momentum", momentum);
    v("num_estimates", num_estimates);
    v("rademacher", rademacher);
  }
  Index seed_channels() const { return (feature_dim + trigger_dim) / (seed_side * seed_side); }
  /// @throws ValueError if features and trigger make no image, or channels no groups.
  void validate() const {
    if (feature_dim < 1 || trigger_dim < 0 || seed_side < 1 ||
        (feature_dim + trigger_dim) % (seed_side * seed_side) != 0)
      throw ValueError(concat("BlackVIP: feature_dim ", feature_dim, " and trigger_dim ",
                              trigger_dim, " make no image of side ", seed_side));
    Index in = seed_channels();
    for (const auto& stage : channels) {
      if (stage.size() != 2 || stage[0] < 1 || stage[1] < 1 || stage[0] % in != 0)
        throw ValueError(concat("BlackVIP: a stage of ", stage.size(), " channel numbers after ",
                                in, " channels, expected two, the first a multiple of these"));
      in = stage[1];
    }
    if (!pixel_range.empty() && (pixel_range.size() != 2 || !(pixel_range[0] < pixel_range[1])))
      throw ValueError("BlackVIP: pixel_range is not a lowest and a highest pixel");
  }
};

/// The coordinator of BlackVIP: a prompt of the size of an image from what a frozen encoder made of
/// the image. [z; t] as an image of side s; stages of a transposed convolution of each channel by
/// itself (kernel and stride 2, bias), a 1×1 convolution, a normalisation over running statistics
/// (eps 1e-5), GELU; a transposed convolution to three channels. x̃ = clip(x + ε h(z)).
///
/// Trained: trigger + Σ over stages (4 out₁ + out₁ + out₁ out₂ + 2 out₂) + 12 channels; with the
/// default sizes 9920. Meant for BasicSpsa, over values of the loss of a black box. Not the
/// identity at the start; nothing to merge. Source: Oh et al. 2023, arXiv:2303.14773, section 4,
/// and its program. Tensors: coordinator.{trigger, decoder.N.{up, point, bn}}.
template <std::floating_point T>
class BasicBlackvipCoordinator {
 public:
  using Scalar = T;
  using Config = BlackvipConfig;

  BasicBlackvipCoordinator(const BlackvipConfig& config, InitContext<T>& context)
      : config_((config.validate(), config)) {
    auto trigger = BasicTensor<T>::zeros({config.trigger_dim});
    if (!context.loading) context.generator.uniform(trigger.data(), trigger.size(), 0, 0.1);
    trigger_ = BasicParameter<T>(std::move(trigger));
    const auto make = [&](const Shape& shape, Index fan_in) {
      return BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, shape, fan_in));
    };
    Index in = config.seed_channels();
    for (const auto& channels : config.channels) {
      Stage s;
      const Index each = channels[0] / in;
      s.up = make({in, each, 2, 2}, 4 * each);
      s.up_bias = make({channels[0]}, 4 * each);
      s.point = make({channels[1], channels[0], 1, 1}, channels[0]);
      s.weight = BasicParameter<T>(BasicTensor<T>::full({channels[1]}, T{1}));
      s.bias = BasicParameter<T>(BasicTensor<T>::zeros({channels[1]}));
      s.mean = BasicParameter<T>(BasicTensor<T>::zeros({channels[1]}), false);
      s.variance = BasicParameter<T>(BasicTensor<T>::full({channels[1]}, T{1}), false);
      stages_.push_back(std::move(s));
      in = channels[1];
    }
    last_ = make({in, 3, 2, 2}, 12);
  }

  /// Side of the prompt: seed_side · 2^(stages + 1).
  Index side() const { return config_.seed_side << (stages_.size() + 1); }
  /// features: [batch, feature_dim]; [batch, 3, side, side]
  BasicVar<T> prompt(const BasicVar<T>& features) const {
    auto& tape = features.tape();
    const Index batch = features.rows(), seed = config_.seed_side;
    if (features.cols() != config_.feature_dim)
      throw ShapeError(concat("BlackVIP: features ", features.shape().text(), ", expected width ",
                              config_.feature_dim));
    const auto trigger = broadcast_to(reshape(tape.parameter(trigger_), {1, config_.trigger_dim}),
                                      {batch, config_.trigger_dim});
    auto x = concat_along(
        1, std::vector<BasicVar<T>>{reshape(features, {batch, config_.feature_dim}), trigger});
    // Pixels as rows.
    x = reshape(permute(reshape(x, {batch, config_.seed_channels(), seed * seed}), {0, 2, 1}),
                {batch * seed * seed, config_.seed_channels()});
    Index at = seed;
    for (const auto& s : stages_) {
      const Index in = x.cols(), each = s.up.shape()[1];
      const auto w = reshape(tape.parameter(s.up), {1, in, 4 * each});
      const auto y = mul(reshape(x, {x.rows(), in, 1}), w);
      x = add(take(y, enlarged(batch, at, in * each), {4 * x.rows(), in * each}),
              tape.parameter(s.up_bias));
      at *= 2;
      const auto point = tape.parameter(s.point);
      x = matmul(x, reshape(point, {point.dim(0), point.dim(1)}), Transpose::no, Transpose::yes);
      auto inverse = s.variance.value().clone();
      for (T& v : inverse) v = 1 / std::sqrt(v + static_cast<T>(1e-5));
      x = mul(sub(x, tape.parameter(s.mean)), tape.constant(inverse));
      x = gelu(add(mul(x, tape.parameter(s.weight)), tape.parameter(s.bias)));
    }
    const auto y = matmul(x, reshape(tape.parameter(last_), {x.cols(), 12}));
    return take(y, image(batch, at), {batch, 3, 2 * at, 2 * at});
  }
  /// x: [batch, 3, side, side]
  BasicVar<T> apply(const BasicVar<T>& x, const BasicVar<T>& features) const {
    const auto p = prompt(features);
    if (x.shape() != p.shape())
      throw ShapeError(
          concat("BlackVIP: images ", x.shape().text(), ", expected ", p.shape().text()));
    const auto y = add(x, scale(p, static_cast<T>(config_.epsilon)));
    return config_.pixel_range.empty() ? y
                                       : clamp(y, static_cast<T>(config_.pixel_range[0]),
                                               static_cast<T>(config_.pixel_range[1]));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto add = [&](const std::string& name, const BasicParameter<T>& p) {
      list.push_back(
          {.name = "coordinator." + name, .parameter = p, .index = {}, .file_shape = {}});
    };
    add("trigger", trigger_);
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      const auto& s = stages_[i];
      const std::string path = concat("decoder.", i, ".");
      add(path + "up.weight", s.up);
      add(path + "up.bias", s.up_bias);
      add(path + "point.weight", s.point);
      add(path + "bn.weight", s.weight);
      add(path + "bn.bias", s.bias);
      add(path + "bn.running_mean", s.mean);
      add(path + "bn.running_var", s.variance);
    }
    add(concat("decoder.", stages_.size(), ".up.weight"), last_);
    return list;
  }

 private:
  struct Stage {
    BasicParameter<T> up, up_bias, point, weight, bias, mean, variance;
  };

  /// Positions in [batch · side², in, 4 each] of [batch · (2 side)², out = in · each].
  static std::vector<Index> enlarged(Index batch, Index side, Index out) {
    std::vector<Index> index;
    index.reserve(static_cast<std::size_t>(batch * side * side * 4 * out));
    for (Index b = 0; b < batch; ++b)
      for (Index y = 0; y < 2 * side; ++y)
        for (Index x = 0; x < 2 * side; ++x) {
          const Index pixel = (b * side + y / 2) * side + x / 2, corner = y % 2 * 2 + x % 2;
          for (Index o = 0; o < out; ++o) index.push_back(pixel * 4 * out + 4 * o + corner);
        }
    return index;
  }
  /// Positions in [batch · side², 12] of an image [batch, 3, 2 side, 2 side].
  static std::vector<Index> image(Index batch, Index side) {
    std::vector<Index> index;
    index.reserve(static_cast<std::size_t>(batch * side * side * 12));
    for (Index b = 0; b < batch; ++b)
      for (Index o = 0; o < 3; ++o)
        for (Index y = 0; y < 2 * side; ++y)
          for (Index x = 0; x < 2 * side; ++x)
            index.push_back(((b * side + y / 2) * side + x / 2) * 12 + 4 * o + y % 2 * 2 + x % 2);
    return index;
  }

  BlackvipConfig config_;
  BasicParameter<T> trigger_, last_;
  std::vector<Stage> stages_;
};

using BlackvipCoordinator = BasicBlackvipCoordinator<float>;

}  // namespace graft::inline v0_1
