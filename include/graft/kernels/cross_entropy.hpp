#pragma once

#include <cstdint>
#include <type_traits>

#include "graft/kernels/isa.hpp"

namespace graft::inline v0_1::kernels {

/// Label of rows that neither have a loss nor give a gradient.
inline constexpr std::int64_t kIgnoredLabel = -100;

/// Cross-entropy of rows of logits: loss_i = log Σ_j e^logits(i, j) − logits(i, label_i); 0 for
/// ignored rows.
///
/// With write_gradient the logits are overwritten by grad_scale · (softmax − one-hot), by 0 in
/// ignored rows; without it they are left alone. correct[i] (if not null) is 1 where the first
/// largest logit is the label's, else 0. Logits may be −∞. Labels other than −100 must be in 0 …
/// vocab − 1. logits: row i at logits + i · ld. T = float or double.
template <class T>
void cross_entropy_rows(T* logits, Index rows, Index vocab, Index ld, const std::int64_t* labels,
                        std::type_identity_t<T> grad_scale, bool write_gradient,
                        std::type_identity_t<T>* loss, unsigned char* correct);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/cross_entropy_impl.hpp"
#endif
