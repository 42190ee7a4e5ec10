#pragma once

#include <cstdint>
#include <span>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Columns of a matrix as rows: a [rank, n], ids -> a[:, ids]ᵀ [ids, rank]. Column `fixed` gets no
/// gradient; −1: all do. Ids are not checked.
template <std::floating_point T>
BasicVar<T> gather_columns(const BasicVar<T>& a, std::span<const std::int32_t> list,
                           Index fixed = -1);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/gather_columns_impl.hpp"
#endif
