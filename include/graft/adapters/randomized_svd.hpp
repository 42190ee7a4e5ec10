#pragma once

#include "graft/adapters/initial_values.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// The leading q singular triplets of a [m, n] from a random start: a basis of the range of A Ω
/// with `iterations` power steps, then the SVD in that basis; u: [m, q], s: [q], v: [n, q].
/// Source: Halko, Martinsson, Tropp 2011 (arXiv:0909.4061), algorithms 4.4 and 5.1; the draws of Ω
/// and the steps are those of torch.svd_lowrank, so that the same generator gives the same result
/// up to rounding. @throws ValueError unless 1 ≤ q ≤ min(m, n).
template <std::floating_point T>
SingularValues<T> randomized_svd(const BasicTensor<T>& matrix, Index q, int iterations,
                                 TorchGenerator& generator);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/impl/randomized_svd_impl.hpp"
#endif
