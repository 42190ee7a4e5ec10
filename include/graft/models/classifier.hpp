#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/autograd/ops/loss.hpp"
#include "graft/base/rng.hpp"
#include "graft/models/model.hpp"
#include "graft/models/weights.hpp"

namespace graft::inline v0_1::models {

/// What the head of an encoder is for.
enum class Task { embedding, sequence_classification, token_classification, masked_language };

/// What a classifier is to learn. Automatic: regression with one class; otherwise one of the
/// classes where a batch has labels, any number of them where it has targets.
enum class Problem { automatic, regression, single_label, multi_label };

/// A classifier in place of the head of a language model: `classes` numbers from the last real
/// token of a row, without a bias. Real is what the mask keeps and is not `padding_id`.
struct ClassifierHead {
  Index classes = 0;  ///< 0: a language model
  Problem problem = Problem::automatic;
  std::optional<std::int32_t> padding_id = {};
};

/// The head that a model is to have, whatever its file has.
struct HeadConfig {
  Task task = Task::sequence_classification;
  Index classes = 2;
  std::uint64_t seed = 0;   ///< of layers that the file does not have
  double deviation = 0.02;  ///< their weights are drawn from N(0, deviation²), biases are 0
};

/// Weights of a file, where the layers of a head that are missing in it, or of another shape there,
/// are drawn. Layers are drawn in the order in which they are asked for; norms begin as ones and
/// zeros.
template <std::floating_point T>
class WeightsWithHead final : public BasicWeights<T> {
 public:
  /// `names`: the layers that may be drawn, with or without a bias.
  WeightsWithHead(const BasicWeights<T>& file, std::vector<std::string> names,
                  const HeadConfig& head, bool biases = true)
      : file_(&file),
        names_(std::move(names)),
        generator_(head.seed),
        deviation_(head.deviation),
        biases_(biases) {}

  bool has(const std::string& name) const override { return file_->has(name); }
  bool fits(const std::string& name, const Shape& shape) const override {
    return file_->fits(name, shape);
  }
  bool differ(const std::string& first, const std::string& second) const override {
    return file_->differ(first, second);
  }
  BasicTensor<T> tensor(const std::string& name, const Shape& shape) const override {
    const std::string layer = name.substr(0, name.rfind('.'));
    if (file_->has(name) || !may_draw(layer)) return file_->tensor(name, shape);
    if (drawn_.empty() || drawn_.back() != layer) drawn_.push_back(layer);
    return name.ends_with(".weight") ? BasicTensor<T>::ones(shape) : BasicTensor<T>::zeros(shape);
  }
  BasicAnyLinear<T> linear(const std::string& name, Index out, Index in) const override {
    if (file_->fits(name + ".weight", {out, in}) || !may_draw(name))
      return file_->linear(name, out, in);
    drawn_.push_back(name);
    auto weight = BasicTensor<T>::empty({out, in});
    generator_.normal(weight.data(), weight.size(), 0.0, deviation_);
    return BasicDenseLinear<T>(weight, biases_ ? BasicTensor<T>::zeros({out}) : BasicTensor<T>{});
  }
  BasicEmbeddingTable<T> embedding(const std::string& name, Index rows, Index dim) const override {
    return file_->embedding(name, rows, dim);
  }
  /// Layers that were drawn so far.
  const std::vector<std::string>& drawn() const { return drawn_; }

 private:
  bool may_draw(const std::string& layer) const {
    return std::find(names_.begin(), names_.end(), layer) != names_.end();
  }

  const BasicWeights<T>* file_;
  std::vector<std::string> names_;
  mutable TorchGenerator generator_;
  double deviation_;
  bool biases_;
  mutable std::vector<std::string> drawn_;
};

/// Loss of a classifier: mean cross-entropy of logits [rows, classes] against labels (-100 does not
/// count); the mean squared error of regression and the mean binary cross-entropy of several labels
/// are against `targets`, one a logit.
template <std::floating_point T>
BasicVar<T> classification_loss(const BasicVar<T>& logits, const BasicBatch<T>& batch,
                                Problem problem = Problem::automatic) {
  const Index classes = logits.cols();
  if (problem == Problem::automatic)
    problem = classes == 1                            ? Problem::regression
              : batch.targets && batch.labels.empty() ? Problem::multi_label
                                                      : Problem::single_label;
  if (problem != Problem::single_label) {
    const bool regression = problem == Problem::regression;
    auto targets = batch.targets;
    if (!targets && !batch.labels.empty())
      targets = BasicTensor<T>::from(std::vector<T>(batch.labels.begin(), batch.labels.end()),
                                     {static_cast<Index>(batch.labels.size())});
    if (!targets || targets.size() != logits.size())
      throw ShapeError(concat(regression ? "regression" : "multi-label",
                              " loss: ", targets ? targets.size() : 0, " targets for ",
                              logits.size(), " logits"));
    if (!regression) return binary_cross_entropy(logits, targets);
    return mse(reshape(logits, {logits.size()}),
               logits.tape().constant(targets.reshape({logits.size()})));
  }
  return cross_entropy(reshape(logits, {logits.rows(), classes}),
                       std::span<const std::int64_t>(batch.labels));
}

}  // namespace graft::inline v0_1::models
