#pragma once

#include <functional>

#include "graft/autograd/tape.hpp"

namespace graft::inline v0_1 {

/// What a training step may run of a model on one batch, for adapters whose objective takes more
/// than one pass. Every call is a pass of its own, with its own random draws.
template <std::floating_point T>
struct TrainingPasses {
  std::function<BasicVar<T>()> loss;    ///< runs the model: its loss against the labels
  std::function<BasicVar<T>()> logits;  ///< runs the model: what its head gives
  std::function<BasicVar<T>(const BasicVar<T>& logits)> loss_of;  ///< the loss that logits have
};

}  // namespace graft::inline v0_1
