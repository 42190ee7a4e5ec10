#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"
#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/reduce.hpp"
#include "graft/autograd/ops/shape.hpp"
#include "graft/kernels/cross_entropy.hpp"

namespace graft::inline v0_1 {

/// mean((prediction - target)²), a scalar.
template <std::floating_point T>
BasicVar<T> mse(const BasicVar<T>& prediction, const BasicVar<T>& target) {
  return mean(square(sub(prediction, target)));
}

/// Mean of -(t log σ(x) + (1 - t) log(1 - σ(x))) over all logits x and their targets t, a scalar.
template <std::floating_point T>
BasicVar<T> binary_cross_entropy(const BasicVar<T>& logits, const BasicTensor<T>& targets);

/// Label of a row that does not count in a cross-entropy.
inline constexpr std::int64_t kIgnoredLabel = -100;

namespace detail {

GRAFT_KERNEL Index count_labels(const char* operation, std::span<const std::int64_t> labels,
                                Index rows, Index classes);

}  // namespace detail

/// Mean of -log softmax(logits)[label] over the rows whose label is not -100; 0 if there is none.
/// logits: [rows, classes]. `weights`, one a row, multiply the losses before the mean; none: ones.
template <std::floating_point T>
BasicVar<T> cross_entropy(const BasicVar<T>& logits, std::span<const std::int64_t> labels,
                          std::span<const std::type_identity_t<T>> weights = {});

/// Mean over the rows of KL(softmax(p) ‖ softmax(q)), a scalar; detach an argument to stop its
/// gradient. p, q: logits [rows, classes]. `weights`, one a row, 0 or 1, say which rows count;
/// none: all.
template <std::floating_point T>
BasicVar<T> kl_divergence(const BasicVar<T>& p, const BasicVar<T>& q,
                          const std::vector<T>& weights = {});

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/loss_impl.hpp"
#endif
