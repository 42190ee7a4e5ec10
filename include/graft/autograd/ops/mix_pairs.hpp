#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Pairs of columns that are mixed one after the other, the last pair first.
using ColumnPairs = std::vector<std::pair<std::int32_t, std::int32_t>>;

/// The pairs of a binary tree over d columns: level l pairs neighbours among the multiples of 2ˡ, a
/// column without partner goes on to the next level. d − 1 pairs, level by level from stride one.
GRAFT_KERNEL ColumnPairs tree_pairs(Index d);

namespace detail {

/// Rows that are worked on together, one a vector lane.
inline constexpr Index kPairLanes = 16;

}  // namespace detail

/// Mixes pairs of columns by 2 × 2 matrices, the last pair first: for each pair (i, j) with matrix
/// m, (x_i, x_j) ← (x_i, x_j) m. Four multiplications a pair and row; the product of the pairs is
/// never formed. x: [..., d], m: [pairs, 2, 2], result as x. Keeps x and computes what lies between
/// once more in the backward pass.
/// @throws ShapeError if there are not as many matrices as pairs. Columns are not checked.
template <std::floating_point T>
BasicVar<T> mix_pairs(const BasicVar<T>& x, const BasicVar<T>& m,
                      std::shared_ptr<const ColumnPairs> pairs);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/mix_pairs_impl.hpp"
#endif
