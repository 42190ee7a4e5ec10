#pragma once

#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Rows that are zero but for y[index[i]] += x[i], `rows` of them. x: [index, ...]; an index may
/// occur several times. @throws ShapeError for another number of indices, ValueError for one out of
/// range
template <std::floating_point T>
BasicVar<T> scatter_rows(const BasicVar<T>& x, std::vector<Index> index, Index rows);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/scatter_rows_impl.hpp"
#endif
