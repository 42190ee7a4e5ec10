#pragma once

#include <cmath>
#include <complex>
#include <map>
#include <memory>
#include <mutex>
#include <numbers>
#include <unsupported/Eigen/FFT>
#include <utility>
#include <vector>

#include "graft/base/aligned_buffer.hpp"
#include "graft/kernels/impl/gemm_impl.hpp"
#include "graft/kernels/simd.hpp"
#include "graft/tensor/fft.hpp"

#define GRAFT_FOREACH_FILE "graft/tensor/impl/fft_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::detail {

/// Factors and roots of unity of one length.
struct FftPlan {
  Index n;
  std::vector<Index> radices;
  std::vector<float> roots;  // cos and −sin of 2π t / n

  explicit FftPlan(Index length) : n(length), roots(static_cast<std::size_t>(2 * length)) {
    Index rest = n;
    for (const Index radix : {Index{4}, Index{2}, Index{3}})
      for (; rest % radix == 0; rest /= radix) radices.push_back(radix);
    for (Index radix = 5; rest > 1; radix += 2)
      for (; rest % radix == 0; rest /= radix) radices.push_back(radix);
    for (Index t = 0; t < n; ++t) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(t) / static_cast<double>(n);
      roots[static_cast<std::size_t>(t)] = static_cast<float>(std::cos(angle));
      roots[static_cast<std::size_t>(n + t)] = static_cast<float>(-std::sin(angle));
    }
  }
  static std::shared_ptr<const FftPlan> of(Index n) {
    static std::mutex mutex;
    static std::map<Index, std::shared_ptr<const FftPlan>> plans;
    const std::lock_guard lock(mutex);
    auto& plan = plans[n];
    if (!plan) plan = std::make_shared<const FftPlan>(n);
    return plan;
  }
};

/// Signals of kSignals = 2 · kLanes real vectors in flight: the first half as real, the second as
/// imaginary parts, element by element.
class FftBatch {
 public:
  static constexpr Index kLanes = 16, kSignals = 2 * kLanes;

  explicit FftBatch(Index n)
      : plan_(FftPlan::of(n)), buffer_(static_cast<std::size_t>(4 * n * kLanes)) {
    for (int i = 0; i < 4; ++i) part_[i] = buffer_.data() + i * n * kLanes;
  }
  float* re() { return part_[0]; }
  float* im() { return part_[1]; }
  void clear() { std::fill_n(buffer_.data(), buffer_.size(), 0.0F); }
  /// In place, or the other way (without the factor 1 / n) with the parts swapped.
  void run(bool inverse) {
    if (inverse) std::swap(part_[0], part_[1]);
    Index s = 1;
    for (const Index radix : plan_->radices) {
      GRAFT_DISPATCH(fft_pass_of)
      (radix, plan_->n, s, s * kLanes, part_[0], part_[1], part_[2], part_[3], plan_->roots.data());
      std::swap(part_[0], part_[2]);
      std::swap(part_[1], part_[3]);
      s *= radix;
    }
    if (inverse) std::swap(part_[0], part_[1]);
  }

 private:
  std::shared_ptr<const FftPlan> plan_;
  AlignedBuffer<float> buffer_;
  float* part_[4];
};

/// Up to FftBatch::kSignals vectors at once; the rest of the lanes is zero.
inline void real_fft_batch(FftBatch& batch, const float* x, Index stride_x, Index count, Index n,
                           float* re, float* im, Index stride) {
  constexpr Index kLanes = FftBatch::kLanes;
  const Index reals = std::min(count, kLanes), imaginaries = count - reals;
  if (count < FftBatch::kSignals) batch.clear();
  GRAFT_DISPATCH(store_transposed)(x, stride_x, reals, n, 1, 0, batch.re(), kLanes);
  if (imaginaries > 0) GRAFT_DISPATCH(store_transposed)
  (x + kLanes * stride_x, stride_x, imaginaries, n, 1, 0, batch.im(), kLanes);
  batch.run(false);
  float split[4][kLanes];
  for (Index f = 0; f <= n / 2; ++f) {
    const Index g = f == 0 ? 0 : n - f;
    const bool whole = count == FftBatch::kSignals;
    float* ar = whole ? re + f * stride : split[0];
    float* ai = whole ? im + f * stride : split[1];
    float* br = whole ? ar + kLanes : split[2];
    float* bi = whole ? ai + kLanes : split[3];
    GRAFT_DISPATCH(fft_split)
    (batch.re() + f * kLanes, batch.im() + f * kLanes, batch.re() + g * kLanes,
     batch.im() + g * kLanes, ar, ai, br, bi, kLanes);
    if (whole) continue;
    for (Index j = 0; j < count; ++j) {
      re[f * stride + j] = j < kLanes ? split[0][j] : split[2][j - kLanes];
      im[f * stride + j] = j < kLanes ? split[1][j] : split[3][j - kLanes];
    }
  }
}

inline void inverse_real_fft_batch(FftBatch& batch, const float* re, const float* im, Index stride,
                                   Index count, Index n, float* x, Index stride_x) {
  constexpr Index kLanes = FftBatch::kLanes;
  const Index reals = std::min(count, kLanes), imaginaries = count - reals;
  const float factor = 1 / static_cast<float>(n);
  const bool whole = count == FftBatch::kSignals;
  float padded[4][kLanes] = {};
  constexpr float kZeros[kLanes] = {};
  for (Index f = 0; f <= n / 2; ++f) {
    // Z_f = A_f + i B_f and Z_{n − f} = Ā_f + i B̄_f; what has no mirror is real.
    const bool single = f == 0 || 2 * f == n;
    const Index g = single ? f : n - f;
    const float* ar = re + f * stride;
    const float* ai = im + f * stride;
    const float* br = ar + kLanes;
    const float* bi = ai + kLanes;
    if (!whole) {
      std::copy_n(ar, reals, padded[0]);
      std::copy_n(ai, reals, padded[1]);
      if (imaginaries > 0) {
        std::copy_n(br, imaginaries, padded[2]);
        std::copy_n(bi, imaginaries, padded[3]);
      }
      ar = padded[0];
      ai = padded[1];
      br = padded[2];
      bi = padded[3];
    }
    GRAFT_DISPATCH(fft_join)
    (ar, single ? kZeros : ai, br, single ? kZeros : bi, factor, batch.re() + f * kLanes,
     batch.im() + f * kLanes, batch.re() + g * kLanes, batch.im() + g * kLanes, kLanes);
  }
  batch.run(true);
  GRAFT_DISPATCH(store_transposed)(batch.re(), kLanes, n, reals, 1, 0, x, stride_x);
  if (imaginaries > 0) GRAFT_DISPATCH(store_transposed)
  (batch.im(), kLanes, n, imaginaries, 1, 0, x + kLanes * stride_x, stride_x);
}

template <std::floating_point T>
void real_fft(const T* x, Index stride_x, Index count, Index n, T* re, T* im, Index stride) {
  if constexpr (std::is_same_v<T, float>) {
    FftBatch batch(n);
    for (Index i = 0; i < count; i += FftBatch::kSignals)
      real_fft_batch(batch, x + i * stride_x, stride_x, std::min(FftBatch::kSignals, count - i), n,
                     re + i, im + i, stride);
    return;
  }
  Eigen::FFT<T> fft;
  std::vector<std::complex<T>> spectrum(static_cast<std::size_t>(n));
  for (Index i = 0; i < count; ++i) {
    if (n == 1)
      spectrum[0] = x[i * stride_x];
    else
      fft.fwd(spectrum.data(), x + i * stride_x, n);
    for (Index f = 0; f <= n / 2; ++f) {
      re[f * stride + i] = spectrum[static_cast<std::size_t>(f)].real();
      im[f * stride + i] = spectrum[static_cast<std::size_t>(f)].imag();
    }
  }
}

template <std::floating_point T>
void inverse_real_fft(const T* re, const T* im, Index stride, Index count, Index n, T* x,
                      Index stride_x) {
  if constexpr (std::is_same_v<T, float>) {
    FftBatch batch(n);
    for (Index i = 0; i < count; i += FftBatch::kSignals)
      inverse_real_fft_batch(batch, re + i, im + i, stride, std::min(FftBatch::kSignals, count - i),
                             n, x + i * stride_x, stride_x);
    return;
  }
  Eigen::FFT<T> fft;
  std::vector<std::complex<T>> spectrum(static_cast<std::size_t>(n));
  for (Index i = 0; i < count; ++i) {
    for (Index f = 0; f <= n / 2; ++f)
      spectrum[static_cast<std::size_t>(f)] = {re[f * stride + i], im[f * stride + i]};
    if (n == 1)
      x[i * stride_x] = spectrum[0].real();
    else
      fft.inv(x + i * stride_x, spectrum.data(), n);
  }
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template void real_fft<float>(const float*, Index, Index, Index, float*, float*, Index);
template void real_fft<double>(const double*, Index, Index, Index, double*, double*, Index);
template void inverse_real_fft<float>(const float*, const float*, Index, Index, Index, float*,
                                      Index);
template void inverse_real_fft<double>(const double*, const double*, Index, Index, Index, double*,
                                       Index);
#endif

}  // namespace graft::inline v0_1::detail
