#pragma once

#include <utility>

#include "graft/autograd/ops/common.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Inverse of a square matrix, or of each of a stack of them: dA = -Yᵀ dY Yᵀ. @throws ShapeError
template <std::floating_point T>
BasicVar<T> inverse(const BasicVar<T>& a);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/linalg_impl.hpp"
#endif
