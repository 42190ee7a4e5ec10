#pragma once

#include <span>
#include <string>
#include <vector>

#include "graft/autograd/ops/loss.hpp"
#include "graft/models/model.hpp"

namespace graft::models {

/// What the head of an encoder is for.
enum class Task { embedding, sequence_classification, token_classification };

/// Loss of a classifier: mean cross-entropy of logits [rows, classes] against labels (-100 does not
/// count), or the mean squared error against `targets` if there is one class.
template <std::floating_point T>
BasicVar<T> classification_loss(const BasicVar<T>& logits, const BasicBatch<T>& batch) {
  const Index classes = logits.cols();
  if (classes == 1) {
    if (batch.targets.size() != logits.size() || !batch.targets)
      throw ShapeError(concat("regression loss: ", batch.targets ? batch.targets.size() : 0,
                              " targets for ", logits.size(), " rows"));
    return mse(reshape(logits, {logits.size()}),
               logits.tape().constant(batch.targets.reshape({logits.size()})));
  }
  return cross_entropy(reshape(logits, {logits.rows(), classes}),
                       std::span<const std::int64_t>(batch.labels));
}

}  // namespace graft::models
