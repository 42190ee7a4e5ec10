#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graft/autograd/checkpoint.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/layers/sites.hpp"

namespace graft::inline v0_1 {

/// cap · tanh(logits / cap), elementwise (Gemma Team 2024, arXiv:2408.00118); cap 0: the logits.
template <std::floating_point T>
BasicVar<T> capped_logits(const BasicVar<T>& logits, std::type_identity_t<T> cap) {
  return cap > 0 ? scale(tanh(scale(logits, T{1} / cap)), cap) : logits;
}

/// Logits of the rows of `hidden` whose numbers are given: [rows, vocabulary].
template <std::floating_point T>
BasicVar<T> logits_of_rows(const BasicVar<T>& hidden, const BasicLinearSite<T>& head,
                           const std::vector<Index>& rows, std::type_identity_t<T> cap = 0);

/// Mean cross-entropy of softmax(head(hidden)) over the rows whose label is not -100, without ever
/// holding the rows × vocabulary matrix of logits: rows are done in chunks of `chunk_rows`, and
/// rows without a label are left out.
///
/// hidden: [rows, dim]. With a frozen head the gradient of each chunk is computed beside its loss;
/// with an adapted head, or with logits that have a cap, each chunk is checkpointed. Memory:
/// chunk_rows · vocabulary. `weights` (one a row; none: ones) multiply the losses before the mean,
/// which still divides by the number of labels; `losses` are without them.
template <std::floating_point T>
BasicVar<T> linear_cross_entropy(const BasicVar<T>& hidden, const BasicLinearSite<T>& head,
                                 std::span<const std::int64_t> labels, Index chunk_rows = 128,
                                 std::vector<unsigned char>* correct = nullptr,
                                 std::vector<T>* losses = nullptr, std::span<const T> weights = {},
                                 T cap = 0);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/language_head_impl.hpp"
#endif
