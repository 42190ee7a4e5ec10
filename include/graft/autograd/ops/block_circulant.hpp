#pragma once

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/tensor/fft.hpp"

namespace graft::inline v0_1 {

/// Product with a matrix of circulant blocks: y[…, m b + t] = Σ_n Σ_j w[m, n, (j − t) mod b] x[…, n
/// b + j]. In the frequency domain: O((M + N) b log b + M N b) a row instead of M N b².
///
/// x: [..., N b], w: [M, N, b], result [..., M b]. With X, W, Y the spectra along the blocks: Y = X
/// W̄ᵀ, dX = dY W, dW = X dȲ. Keeps x. @throws ShapeError if the sizes do not fit.
template <std::floating_point T>
BasicVar<T> block_circulant(const BasicVar<T>& x, const BasicVar<T>& w);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/block_circulant_impl.hpp"
#endif
