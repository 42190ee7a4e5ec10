#pragma once

#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// x with some of its rows replaced: y[index[i]] = rows[i], all others as they are. x: [n, ...],
/// rows: [index, ...]; an index occurs once.
/// @throws ShapeError if the sizes do not fit, ValueError for an index out of range or a repeated
/// one.
template <std::floating_point T>
BasicVar<T> replace_rows(const BasicVar<T>& x, std::vector<Index> index, const BasicVar<T>& rows);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/edit_rows_impl.hpp"
#endif
