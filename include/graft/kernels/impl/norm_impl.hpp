#pragma once

#include <cmath>

#include "graft/base/profile.hpp"
#include "graft/kernels/impl/chunks.hpp"
#include "graft/kernels/impl/vector_math.hpp"
#include "graft/kernels/norm.hpp"

namespace graft::inline v0_1::kernels::detail {

/// Input and weight that both norms and both directions share.
template <class T>
struct NormRows {
  const T* x;
  Index n, ldx;
  const T* weight;
  T offset;
};

}  // namespace graft::inline v0_1::kernels::detail

#define GRAFT_FOREACH_FILE "graft/kernels/impl/norm_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::kernels::detail {

template <bool kCentred>
void norm_forward_rows(const NormRows<float>& a, float eps, const float* bias, float* y, Index ldy,
                       float* mean, float* inv, Index first, Index count) {
  GRAFT_DISPATCH(template norm_forward_rows<kCentred>)
  (a, eps, bias, y, ldy, mean, inv, first, count);
}
template <bool kCentred>
void norm_forward_rows(const NormRows<double>& a, double eps, const double* bias, double* y,
                       Index ldy, double* mean, double* inv, Index first, Index count) {
  for (Index r = first; r < first + count; ++r) {
    const double* x = a.x + r * a.ldx;
    double centre = 0, power = 0;
    if (kCentred) {
      for (Index i = 0; i < a.n; ++i) centre += x[i];
      centre /= static_cast<double>(a.n);
    }
    for (Index i = 0; i < a.n; ++i) power += (x[i] - centre) * (x[i] - centre);
    const double factor = 1 / std::sqrt(power / static_cast<double>(a.n) + eps);
    if (kCentred && mean != nullptr) mean[r] = centre;
    if (inv != nullptr) inv[r] = factor;
    for (Index i = 0; i < a.n; ++i) {
      const double z = (x[i] - centre) * factor;
      const double w = a.weight == nullptr ? 1 : a.weight[i] + a.offset;
      y[r * ldy + i] = z * w + (bias == nullptr ? 0 : bias[i]);
    }
  }
}

template <bool kCentred>
void norm_backward_rows(const NormRows<float>& a, const float* mean, const float* inv,
                        const float* dy, Index lddy, float* dx, Index lddx, float* dweight,
                        float* dbias, Index first, Index count) {
  GRAFT_DISPATCH(template norm_backward_rows<kCentred>)
  (a, mean, inv, dy, lddy, dx, lddx, dweight, dbias, first, count);
}
template <bool kCentred>
void norm_backward_rows(const NormRows<double>& a, const double* mean, const double* inv,
                        const double* dy, Index lddy, double* dx, Index lddx, double* dweight,
                        double* dbias, Index first, Index count) {
  for (Index r = first; r < first + count; ++r) {
    const double* x = a.x + r * a.ldx;
    const double* d = dy + r * lddy;
    const double centre = kCentred ? mean[r] : 0;
    auto weighted = [&](Index i) {
      return d[i] * (a.weight == nullptr ? 1 : a.weight[i] + a.offset);
    };
    double g_mean = 0, gz_mean = 0;
    for (Index i = 0; i < a.n; ++i) {
      const double z = (x[i] - centre) * inv[r];
      if (kCentred) g_mean += weighted(i);
      gz_mean += weighted(i) * z;
      if (dweight != nullptr) dweight[i] += d[i] * z;
      if (dbias != nullptr) dbias[i] += d[i];
    }
    if (dx == nullptr) continue;
    g_mean /= static_cast<double>(a.n);
    gz_mean /= static_cast<double>(a.n);
    for (Index i = 0; i < a.n; ++i)
      dx[r * lddx + i] += inv[r] * (weighted(i) - g_mean - (x[i] - centre) * inv[r] * gz_mean);
  }
}

template <bool kCentred, class T>
void norm_forward(const NormRows<T>& a, Index rows, T eps, const T* bias, T* y, Index ldy, T* mean,
                  T* inv) {
  const ProfileScope profile("norm", 0, 2.0 * sizeof(T) * static_cast<double>(rows * a.n));
  for_rows(rows, a.n, [&](Index first, Index count) {
    norm_forward_rows<kCentred>(a, eps, bias, y, ldy, mean, inv, first, count);
  });
}

struct NormPartialSums;  // purpose of a scratch buffer

template <bool kCentred, class T>
void norm_backward(const NormRows<T>& a, Index rows, const T* mean, const T* inv, const T* dy,
                   Index lddy, T* dx, Index lddx, T* dweight, T* dbias) {
  if (rows <= 0) return;
  const ProfileScope profile("norm gradient", 0, 4.0 * sizeof(T) * static_cast<double>(rows * a.n));
  if (dweight == nullptr && dbias == nullptr) {
    if (dx == nullptr) return;
    for_rows(rows, a.n, [&](Index first, Index count) {
      norm_backward_rows<kCentred>(a, mean, inv, dy, lddy, dx, lddx, nullptr, nullptr, first,
                                   count);
    });
    return;
  }
  // Sums over rows: at most 16 groups of rows, each with sums of its own, then the groups in order.
  constexpr Index kGroups = 16;
  const Index group = std::max(Index{32}, (rows + kGroups - 1) / kGroups);
  const Index groups = (rows + group - 1) / group;
  if (groups == 1) {
    norm_backward_rows<kCentred>(a, mean, inv, dy, lddy, dx, lddx, dweight, dbias, 0, rows);
    return;
  }
  T* const sums = thread_scratch<T, NormPartialSums>(2 * groups * a.n);
  ThreadPool::global().parallel_for(groups, [&](Index g) {
    T* const weight_sums = dweight == nullptr ? nullptr : sums + 2 * g * a.n;
    T* const bias_sums = dbias == nullptr ? nullptr : sums + (2 * g + 1) * a.n;
    std::fill_n(sums + 2 * g * a.n, 2 * a.n, T{0});
    norm_backward_rows<kCentred>(a, mean, inv, dy, lddy, dx, lddx, weight_sums, bias_sums,
                                 g * group, std::min(group, rows - g * group));
  });
  for (Index g = 0; g < groups; ++g) {
    const T* const weight_sums = sums + 2 * g * a.n;
    if (dweight != nullptr)
      for (Index i = 0; i < a.n; ++i) dweight[i] += weight_sums[i];
    if (dbias != nullptr)
      for (Index i = 0; i < a.n; ++i) dbias[i] += weight_sums[a.n + i];
  }
}

}  // namespace graft::inline v0_1::kernels::detail

namespace graft::inline v0_1::kernels {

template <class T>
void rms_norm_forward(const T* x, Index rows, Index n, Index ldx,
                      const std::type_identity_t<T>* weight, std::type_identity_t<T> eps,
                      std::type_identity_t<T> weight_offset, std::type_identity_t<T>* y, Index ldy,
                      std::type_identity_t<T>* inv_rms) {
  const detail::NormRows<T> a{x, n, ldx, weight, weight_offset};
  detail::norm_forward<false, T>(a, rows, eps, nullptr, y, ldy, nullptr, inv_rms);
}

template <class T>
void rms_norm_backward(const T* x, Index rows, Index n, Index ldx,
                       const std::type_identity_t<T>* weight, std::type_identity_t<T> weight_offset,
                       const std::type_identity_t<T>* inv_rms, const std::type_identity_t<T>* dy,
                       Index lddy, std::type_identity_t<T>* dx, Index lddx,
                       std::type_identity_t<T>* dweight) {
  const detail::NormRows<T> a{x, n, ldx, weight, weight_offset};
  detail::norm_backward<false, T>(a, rows, nullptr, inv_rms, dy, lddy, dx, lddx, dweight, nullptr);
}

template <class T>
void layer_norm_forward(const T* x, Index rows, Index n, Index ldx,
                        const std::type_identity_t<T>* weight, const std::type_identity_t<T>* bias,
                        std::type_identity_t<T> eps, std::type_identity_t<T>* y, Index ldy,
                        std::type_identity_t<T>* mean, std::type_identity_t<T>* inv_std) {
  const detail::NormRows<T> a{x, n, ldx, weight, T{0}};
  detail::norm_forward<true, T>(a, rows, eps, bias, y, ldy, mean, inv_std);
}

template <class T>
void layer_norm_backward(const T* x, Index rows, Index n, Index ldx,
                         const std::type_identity_t<T>* weight, const std::type_identity_t<T>* mean,
                         const std::type_identity_t<T>* inv_std, const std::type_identity_t<T>* dy,
                         Index lddy, std::type_identity_t<T>* dx, Index lddx,
                         std::type_identity_t<T>* dweight, std::type_identity_t<T>* dbias) {
  const detail::NormRows<T> a{x, n, ldx, weight, T{0}};
  detail::norm_backward<true, T>(a, rows, mean, inv_std, dy, lddy, dx, lddx, dweight, dbias);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                       \
  template void rms_norm_forward<T>(const T*, Index, Index, Index, const T*, T, T, T*, Index, T*); \
  template void rms_norm_backward<T>(const T*, Index, Index, Index, const T*, T, const T*,         \
                                     const T*, Index, T*, Index, T*);                              \
  template void layer_norm_forward<T>(const T*, Index, Index, Index, const T*, const T*, T, T*,    \
                                      Index, T*, T*);                                              \
  template void layer_norm_backward<T>(const T*, Index, Index, Index, const T*, const T*,          \
                                       const T*, const T*, Index, T*, Index, T*, T*);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1::kernels
