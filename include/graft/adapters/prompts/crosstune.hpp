#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/prompts/prompt_table.hpp"
#include "graft/autograd/ops/attention.hpp"
#include "graft/autograd/ops/norm.hpp"

namespace graft::inline v0_1 {

/// Configuration of CrossTune.
struct CrosstuneConfig {
  Index num_heads = 8;
  double dropout = 0;  ///< of what the attention gives, while training; the original: 0.1

  static constexpr const char* kPeftType = "CROSSTUNE";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_heads", num_heads);
    v("dropout", dropout);
  }
  /// @throws ValueError for a value out of its range.
  void validate() const {
    if (num_heads < 1 || dropout < 0 || dropout >= 1)
      throw ValueError(concat("CrossTune: num_heads ", num_heads, ", dropout ", dropout));
  }
};

/// CrossTune: descriptions of classes attend to the features of a text that a frozen model made:
/// q = E W_qᵀ + b_q; k, v from the features h; z = LN(E + W_o attention(q, k, v) + b_o), score of
/// class c: z_c · w + w₀. Which synthetic examples train it: kept_examples.
///
/// E: [classes, d], h: [batch, tokens, d], scores [batch, classes]; trained: 4 (d² + d) + 3 d + 1.
/// LN has eps 1e-5. Both inputs may be kept from run to run. Nothing to merge. Source: Luo et al.
/// 2024, arXiv:2403.12468, section 3. Tensors: shared.crosstune.{query, key, value, out, norm,
/// score}.
template <std::floating_point T>
class BasicCrosstune {
 public:
  using Scalar = T;
  using Config = CrosstuneConfig;

  BasicCrosstune(const CrosstuneConfig& config, Index width, InitContext<T>& context)
      : config_((config.validate(), config)) {
    if (width % config.num_heads != 0)
      throw ValueError(concat("CrossTune: ", config.num_heads, " heads for a width of ", width));
    for (auto* layer : {&query_, &key_, &value_, &out_}) {
      // Xavier's bounds.
      auto w = BasicTensor<T>::zeros({width, width});
      const double bound = std::sqrt(6.0 / static_cast<double>(2 * width));
      if (!context.loading) context.generator.uniform(w.data(), w.size(), -bound, bound);
      layer->weight = BasicParameter<T>(std::move(w));
      layer->bias = BasicParameter<T>(BasicTensor<T>::zeros({width}));
    }
    norm_ = {BasicParameter<T>(BasicTensor<T>::full({width}, T{1})),
             BasicParameter<T>(BasicTensor<T>::zeros({width}))};
    const auto uniform = [&](const Shape& shape) {
      return BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, shape, width));
    };
    score_.weight = uniform({1, width});
    score_.bias = uniform({1});
  }

  /// `mask`: [batch, tokens], 1 = a real token; null: all are.
  BasicVar<T> apply(const BasicVar<T>& features, const BasicVar<T>& labels,
                    std::shared_ptr<const std::vector<unsigned char>> mask = nullptr) const {
    const Index d = query_.weight.shape()[0], batch = features.dim(0), classes = labels.rows();
    if (features.shape().rank() != 3 || features.cols() != d || labels.cols() != d)
      throw ShapeError(concat("CrossTune: features ", features.shape().text(), ", labels ",
                              labels.shape().text(), ", expected width ", d));
    const Index tokens = features.dim(1);
    const auto h = reshape(features, {batch * tokens, d});
    const auto e = reshape(broadcast_to(reshape(labels, {1, classes, d}), {batch, classes, d}),
                           {batch * classes, d});
    AttentionOptions<T> options;
    options.batch = batch;
    options.heads = options.kv_heads = config_.num_heads;
    options.causal = false;
    options.key_mask = std::move(mask);
    options.scale = static_cast<T>(
        1 / std::sqrt(static_cast<double>(d) / static_cast<double>(config_.num_heads)));
    const auto a =
        dropout(out_(attention(query_(e), key_(h), value_(h), options)), config_.dropout);
    auto& tape = h.tape();
    const auto z = layer_norm(add(e, a), tape.parameter(norm_.weight), tape.parameter(norm_.bias),
                              static_cast<T>(1e-5));
    return reshape(score_(z), {batch, classes});
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto add = [&](const char* name, const Layer& layer) {
      const std::string path = concat("shared.crosstune.", name);
      list.push_back(
          {.name = path + ".weight", .parameter = layer.weight, .index = {}, .file_shape = {}});
      list.push_back(
          {.name = path + ".bias", .parameter = layer.bias, .index = {}, .file_shape = {}});
    };
    add("query", query_);
    add("key", key_);
    add("value", value_);
    add("out", out_);
    add("norm", norm_);
    add("score", score_);
    return list;
  }

 private:
  struct Layer {
    BasicParameter<T> weight, bias;
    BasicVar<T> operator()(const BasicVar<T>& x) const {
      return detail::trained_affine<T>(x, x.tape().parameter(weight), x.tape().parameter(bias));
    }
  };
  CrosstuneConfig config_;
  Layer query_, key_, value_, out_, norm_, score_;
};

using Crosstune = BasicCrosstune<float>;

/// The switch of CrossTune's data enhancement: numbers of the synthetic examples that are kept,
/// those whose label a predictor trained on the real ones finds likeliest, with a probability of at
/// least τ. probabilities: [examples, classes], labels: what the examples were made for.
/// @throws ShapeError for another number of labels, ValueError for one that is no class
template <std::floating_point T>
std::vector<Index> kept_examples(const BasicTensor<T>& probabilities,
                                 std::span<const std::int64_t> labels, double tau = 0.5) {
  const Index classes = probabilities.cols();
  if (std::ssize(labels) != probabilities.rows())
    throw ShapeError(concat("kept_examples: ", labels.size(), " labels for probabilities ",
                            probabilities.shape().text()));
  std::vector<Index> kept;
  for (Index i = 0; i < probabilities.rows(); ++i) {
    const auto label = labels[static_cast<std::size_t>(i)];
    if (label < 0 || label >= classes)
      throw ValueError(concat("kept_examples: label ", label, " of ", classes, " classes"));
    const T* p = probabilities.data() + i * classes;
    if (p[label] >= *std::max_element(p, p + classes) && static_cast<double>(p[label]) >= tau)
      kept.push_back(i);
  }
  return kept;
}

}  // namespace graft::inline v0_1
