#pragma once

#include <algorithm>

#include "graft/autograd/ops/spectrum.hpp"

namespace graft::inline v0_1::detail {

template <class T>
BasicTensor<T> spectrum_of(const BasicTensor<T>& x) {
  const Index rows = x.rows(), n = x.cols(), frequencies = n / 2 + 1;
  auto z = BasicTensor<T>::empty({2 * frequencies, rows});
  constexpr Index kRows = 64;
  ThreadPool::global().parallel_for((rows + kRows - 1) / kRows, [&](Index k) {
    const Index first = k * kRows;
    real_fft(x.data() + first * n, n, std::min(kRows, rows - first), n, z.data() + first,
             z.data() + frequencies * rows + first, rows);
  });
  return z;
}

template <class T>
BasicTensor<T> signal_of(const BasicTensor<T>& z, Index n, const Shape& shape) {
  const Index rows = z.cols(), frequencies = n / 2 + 1;
  auto x = BasicTensor<T>::empty(shape);
  constexpr Index kRows = 64;
  ThreadPool::global().parallel_for((rows + kRows - 1) / kRows, [&](Index k) {
    const Index first = k * kRows;
    inverse_real_fft(z.data() + first, z.data() + frequencies * rows + first, rows,
                     std::min(kRows, rows - first), n, x.data() + first * n, n);
  });
  return x;
}

/// Scales the frequencies that stand for their mirrors too (neither 0 nor n / 2), and the others.
template <class T>
void weigh_frequencies(BasicTensor<T>& z, Index n, T paired, T single) {
  const Index rows = z.cols(), frequencies = n / 2 + 1;
  for (Index part = 0; part < 2; ++part)
    for (Index f = 0; f < frequencies; ++f) {
      T* row = z.data() + (part * frequencies + f) * rows;
      kernels::scale(f == 0 || 2 * f == n ? single : paired, row, row, rows);
    }
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> real_spectrum(const BasicVar<T>& x) {
  const Index n = x.cols();
  return x.tape().record(detail::spectrum_of(x.value()), x.requires_grad(),
                         [n, gx = x.grad_ref()](const BasicTensor<T>& dz) {
                           // n times the inverse, where it does not double.
                           auto z = dz.clone();
                           const T size = static_cast<T>(n);
                           detail::weigh_frequencies(z, n, size / 2, size);
                           gx.add(detail::signal_of(z, n, gx.shape()));
                         });
}

template <std::floating_point T>
BasicVar<T> inverse_spectrum(const BasicVar<T>& z, const Shape& shape) {
  const Index n = shape.cols();
  if (z.rows() != 2 * (n / 2 + 1) || z.size() != z.rows() * (shape.elements() / n))
    throw ShapeError(
        concat("inverse_spectrum: ", z.shape().text(), " for a result ", shape.text()));
  return z.tape().record(detail::signal_of(z.value(), n, shape), z.requires_grad(),
                         [n, gz = z.grad_ref()](const BasicTensor<T>& dx) {
                           auto back = detail::spectrum_of(dx);
                           const T size = static_cast<T>(n);
                           detail::weigh_frequencies(back, n, 2 / size, 1 / size);
                           gz.add(back);
                         });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                             \
  template BasicTensor<T> detail::spectrum_of(const BasicTensor<T>&);                    \
  template BasicTensor<T> detail::signal_of(const BasicTensor<T>&, Index, const Shape&); \
  template BasicVar<T> real_spectrum(const BasicVar<T>&);                                \
  template BasicVar<T> inverse_spectrum(const BasicVar<T>&, const Shape&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
