#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/gemm.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// Columns of a matrix by number, [rows, columns].
template <class T>
BasicTensor<T> columns_of(const BasicTensor<T>& x, const std::vector<std::int32_t>& columns);

}  // namespace detail

/// Rows and columns of a matrix that is not zero outside of their block.
struct SubnetPlaces {
  std::vector<std::int32_t> rows, columns;
};

/// x Sᵀ for S with one dense block: y[:, rows_i] = Σ_j block_ij x[:, columns_j], zero elsewhere. x:
/// [..., in], block: [rows, columns], result [..., out]. Keeps only the columns of x that take
/// part. @throws ShapeError if the block does not fit its places. Places are not checked.
template <std::floating_point T>
BasicVar<T> subnet_linear(const BasicVar<T>& x, const BasicVar<T>& block,
                          std::shared_ptr<const SubnetPlaces> places, Index out);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/subnet_linear_impl.hpp"
#endif
