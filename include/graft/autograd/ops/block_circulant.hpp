#pragma once

#include <utility>

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/tensor/fft.hpp"

namespace graft {

namespace detail {

/// Spectra of vectors of length n: re and im [n / 2 + 1, count].
template <class T>
struct Spectra {
  BasicTensor<T> re, im;
  Index n = 0;

  Spectra(Index length, Index count)
      : re(BasicTensor<T>::empty({length / 2 + 1, count})),
        im(BasicTensor<T>::empty({length / 2 + 1, count})),
        n(length) {}
  /// Of the vectors one after the other in x.
  Spectra(const BasicTensor<T>& x, Index length) : Spectra(length, x.size() / length) {
    each_chunk([&](Index first, Index count) {
      real_fft(x.data() + first * n, count, n, re.data() + first, im.data() + first, re.cols());
    });
  }
  BasicTensor<T> back(const Shape& shape) const {
    auto x = BasicTensor<T>::empty(shape);
    each_chunk([&](Index first, Index count) {
      inverse_real_fft(re.data() + first, im.data() + first, re.cols(), count, n,
                       x.data() + first * n);
    });
    return x;
  }
  Index frequencies() const { return re.rows(); }

 private:
  template <class F>
  void each_chunk(F&& f) const {
    constexpr Index kChunk = 256;
    const Index all = re.cols();
    ThreadPool::global().parallel_for((all + kChunk - 1) / kChunk, [&](Index k) {
      f(k * kChunk, std::min(kChunk, all - k * kChunk));
    });
  }
};

/// c = op(a) op(b) frequency by frequency, with b conjugated (then c.im takes the signs of a b̄) or
/// not; a: m × k, b: k × n as `ta` and `tb` see them.
template <class T>
void spectral_product(bool ta, bool tb, bool conjugate, Index m, Index n, Index k,
                      const Spectra<T>& a, const Spectra<T>& b, Spectra<T>& c) {
  const T sign = conjugate ? T{1} : T{-1};
  const Index lda = ta ? m : k, ldb = tb ? k : n;
  for (Index f = 0; f < c.frequencies(); ++f) {
    const T* ar = a.re.data() + f * m * k;
    const T* ai = a.im.data() + f * m * k;
    const T* br = b.re.data() + f * k * n;
    const T* bi = b.im.data() + f * k * n;
    T* cr = c.re.data() + f * m * n;
    T* ci = c.im.data() + f * m * n;
    kernels::gemm(ta, tb, m, n, k, T{1}, ar, lda, br, ldb, T{0}, cr, n);
    kernels::gemm(ta, tb, m, n, k, sign, ai, lda, bi, ldb, T{1}, cr, n);
    kernels::gemm(ta, tb, m, n, k, T{1}, ai, lda, br, ldb, T{0}, ci, n);
    kernels::gemm(ta, tb, m, n, k, -sign, ar, lda, bi, ldb, T{1}, ci, n);
  }
}

}  // namespace detail

/// Product with a matrix of circulant blocks: y[…, m b + t] = Σ_n Σ_j w[m, n, (j − t) mod b] x[…, n
/// b + j]. In the frequency domain: O((M + N) b log b + M N b) a row instead of M N b².
///
/// x: [..., N b], w: [M, N, b], result [..., M b]. With X, W, Y the spectra along the blocks: Y = X
/// W̄ᵀ, dX = dY W, dW = X dȲ. Keeps x. @throws ShapeError if the sizes do not fit.
template <std::floating_point T>
BasicVar<T> block_circulant(const BasicVar<T>& x, const BasicVar<T>& w) {
  auto& tape = detail::common_tape("block_circulant", x, w);
  if (w.shape().rank() != 3 || w.size() == 0 || x.cols() != w.dim(1) * w.dim(2))
    throw ShapeError(
        concat("block_circulant: ", x.shape().text(), " times blocks ", w.shape().text()));
  const Index m = w.dim(0), n = w.dim(1), b = w.dim(2), rows = x.rows();
  detail::Spectra<T> out(b, rows * m);
  {
    const detail::Spectra<T> from(x.value(), b), weights(w.value(), b);
    detail::spectral_product(false, true, true, rows, m, n, from, weights, out);
  }
  return tape.record(out.back(x.shape().with_last(m * b)), x.requires_grad() || w.requires_grad(),
                     [=, gx = x.grad_ref(), gw = w.grad_ref(),
                      kept = w.requires_grad() ? x.saved() : BasicSaved<T>{},
                      vw = w.value()](const BasicTensor<T>& dy) {
                       const detail::Spectra<T> back(dy, b);
                       if (gx) {
                         const detail::Spectra<T> weights(vw, b);
                         detail::Spectra<T> dx(b, rows * n);
                         detail::spectral_product(false, false, false, rows, n, m, back, weights,
                                                  dx);
                         gx.add(dx.back(gx.shape()));
                       }
                       if (gw) {
                         // dYᵀ X̄ is the conjugate of what is wanted.
                         const detail::Spectra<T> from(kept.get(), b);
                         detail::Spectra<T> dw(b, m * n);
                         detail::spectral_product(true, false, true, m, n, rows, back, from, dw);
                         for (T& v : dw.im) v = -v;
                         gw.add(dw.back(gw.shape()));
                       }
                     });
}

}  // namespace graft
