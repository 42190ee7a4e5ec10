#pragma once

#include <utility>

#include "graft/autograd/ops/block_circulant.hpp"

namespace graft::inline v0_1::detail {

/// Spectra of blocks of length b, frequency by frequency as a real matrix [2 blocks, rows]: real
/// parts of all blocks, then imaginary parts. `x` holds rows of `blocks` · b numbers.
template <class T>
BasicTensor<T> block_spectra(const T* x, Index rows, Index blocks, Index b) {
  const Index frequencies = b / 2 + 1, stride = 2 * blocks * rows;
  auto z = BasicTensor<T>::empty({frequencies, 2 * blocks, rows});
  constexpr Index kRows = 256;
  const Index chunks = (rows + kRows - 1) / kRows;
  ThreadPool::global().parallel_for(blocks * chunks, [&](Index task) {
    const Index block = task / chunks, first = task % chunks * kRows;
    T* re = z.data() + block * rows + first;
    real_fft(x + first * blocks * b + block * b, blocks * b, std::min(kRows, rows - first), b, re,
             re + blocks * rows, stride);
  });
  return z;
}

/// The way back.
template <class T>
void from_block_spectra(const BasicTensor<T>& z, Index blocks, Index b, T* x) {
  const Index rows = z.cols(), stride = 2 * blocks * rows;
  constexpr Index kRows = 256;
  const Index chunks = (rows + kRows - 1) / kRows;
  ThreadPool::global().parallel_for(blocks * chunks, [&](Index task) {
    const Index block = task / chunks, first = task % chunks * kRows;
    const T* re = z.data() + block * rows + first;
    inverse_real_fft(re, re + blocks * rows, stride, std::min(kRows, rows - first), b,
                     x + first * blocks * b + block * b, blocks * b);
  });
}

/// The matrices that take spectra of x to those of y: Y = W̄ X with real and imaginary parts apart,
/// [[Wr, Wi], [−Wi, Wr]] for each frequency. w: [M, N, b], result [b / 2 + 1, 2 M, 2 N].
template <class T>
BasicTensor<T> spectral_weights(const BasicTensor<T>& w) {
  const Index m = w.dim(0), n = w.dim(1), b = w.dim(2), frequencies = b / 2 + 1;
  auto re = BasicTensor<T>::empty({frequencies, m * n});
  auto im = BasicTensor<T>::empty({frequencies, m * n});
  real_fft(w.data(), b, m * n, b, re.data(), im.data(), m * n);
  auto z = BasicTensor<T>::empty({frequencies, 2 * m, 2 * n});
  for (Index f = 0; f < frequencies; ++f)
    for (Index i = 0; i < m; ++i)
      for (Index j = 0; j < n; ++j) {
        const T r = re(f, i * n + j), c = im(f, i * n + j);
        T* top = z.data() + (f * 2 * m + i) * 2 * n + j;
        T* bottom = top + m * 2 * n;
        top[0] = bottom[n] = r;
        top[n] = c;
        bottom[0] = -c;
      }
  return z;
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> block_circulant(const BasicVar<T>& x, const BasicVar<T>& w) {
  auto& tape = detail::common_tape("block_circulant", x, w);
  if (w.shape().rank() != 3 || w.size() == 0 || x.cols() != w.dim(1) * w.dim(2))
    throw ShapeError(
        concat("block_circulant: ", x.shape().text(), " times blocks ", w.shape().text()));
  const Index m = w.dim(0), n = w.dim(1), b = w.dim(2), rows = x.rows();
  const Index frequencies = b / 2 + 1;
  auto y = BasicTensor<T>::empty(x.shape().with_last(m * b));
  {
    const auto from = detail::block_spectra(x.value().data(), rows, n, b);
    const auto weights = detail::spectral_weights(w.value());
    auto to = BasicTensor<T>::empty({frequencies, 2 * m, rows});
    for (Index f = 0; f < frequencies; ++f)
      kernels::gemm(false, false, 2 * m, rows, 2 * n, T{1}, weights.data() + f * 4 * m * n, 2 * n,
                    from.data() + f * 2 * n * rows, rows, T{0}, to.data() + f * 2 * m * rows, rows);
    detail::from_block_spectra(to, m, b, y.data());
  }
  return tape.record(
      std::move(y), x.requires_grad() || w.requires_grad(),
      [=, gx = x.grad_ref(), gw = w.grad_ref(),
       kept = w.requires_grad() ? x.saved() : BasicSaved<T>{},
       vw = w.value()](const BasicTensor<T>& dy) {
        const auto back = detail::block_spectra(dy.data(), rows, m, b);
        if (gx) {
          const auto weights = detail::spectral_weights(vw);
          auto to = BasicTensor<T>::empty({frequencies, 2 * n, rows});
          for (Index f = 0; f < frequencies; ++f)
            kernels::gemm(true, false, 2 * n, rows, 2 * m, T{1}, weights.data() + f * 4 * m * n,
                          2 * n, back.data() + f * 2 * m * rows, rows, T{0},
                          to.data() + f * 2 * n * rows, rows);
          auto dx = BasicTensor<T>::empty(gx.shape());
          detail::from_block_spectra(to, n, b, dx.data());
          gx.add(dx);
        }
        if (gw) {
          // dW = Σ dȲ X over the rows, from the products of all parts.
          const auto from = detail::block_spectra(kept.get().data(), rows, n, b);
          auto parts = BasicTensor<T>::empty({2 * m, 2 * n});
          auto re = BasicTensor<T>::empty({frequencies, m * n});
          auto im = BasicTensor<T>::empty({frequencies, m * n});
          for (Index f = 0; f < frequencies; ++f) {
            kernels::gemm(false, true, 2 * m, 2 * n, rows, T{1}, back.data() + f * 2 * m * rows,
                          rows, from.data() + f * 2 * n * rows, rows, T{0}, parts.data(), 2 * n);
            for (Index i = 0; i < m; ++i)
              for (Index j = 0; j < n; ++j) {
                re(f, i * n + j) = parts(i, j) + parts(m + i, n + j);
                im(f, i * n + j) = parts(i, n + j) - parts(m + i, j);
              }
          }
          auto dw = BasicTensor<T>::empty(gw.shape());
          detail::inverse_real_fft(re.data(), im.data(), m * n, m * n, b, dw.data(), b);
          gw.add(dw);
        }
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) \
  template BasicVar<T> block_circulant(const BasicVar<T>&, const BasicVar<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
