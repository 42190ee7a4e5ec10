#pragma once

#include "graft/kernels/impl/chunks.hpp"
#include "graft/kernels/impl/gemm_impl.hpp"
#include "graft/kernels/simd.hpp"
#include "graft/kernels/sparse.hpp"

#define GRAFT_FOREACH_FILE "graft/kernels/impl/sparse_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::kernels {

namespace detail {

inline void sparse_rows_slice(const SparseGroups& s, const float* values, const float* x, Index n,
                              Index first, Index count, float* y) {
  GRAFT_DISPATCH(sparse_rows_slice)(s, values, x, n, first, count, y);
}
inline void sparse_rows_slice(const SparseGroups& s, const double* values, const double* x, Index n,
                              Index first, Index count, double* y) {
  for (Index g = 0; g < s.groups; ++g)
    for (Index j = first; j < first + count; ++j) {
      double sum = 0;
      for (Index e = s.start[g]; e < s.start[g + 1]; ++e)
        sum += values[s.element[e]] * x[s.other[e] * n + j];
      y[g * n + j] = sum;
    }
}
inline void sparse_dots_slice(const SparseGroups& s, const float* a, const float* b, Index n,
                              Index first, Index count, float* d) {
  GRAFT_DISPATCH(sparse_dots_slice)(s, a, b, n, first, count, d);
}
inline void sparse_dots_slice(const SparseGroups& s, const double* a, const double* b, Index n,
                              Index first, Index count, double* d) {
  for (Index g = first; g < first + count; ++g)
    for (Index e = s.start[g]; e < s.start[g + 1]; ++e) {
      double sum = 0;
      for (Index j = 0; j < n; ++j) sum += a[g * n + j] * b[s.other[e] * n + j];
      d[s.element[e]] = sum;
    }
}

template <class T>
void sparse_rows(const SparseGroups& s, const T* values, const T* x, Index n, T* y) {
  constexpr Index kSlice = 64;  // so many columns of X of a layer stay in the second cache
  ThreadPool::global().parallel_for((n + kSlice - 1) / kSlice, [&](Index k) {
    const Index first = k * kSlice;
    sparse_rows_slice(s, values, x, n, first, std::min(kSlice, n - first), y);
  });
}

template <class T>
void sparse_dots(const SparseGroups& s, const T* a, const T* b, Index n, T* d) {
  constexpr Index kGroups = 64;
  ThreadPool::global().parallel_for((s.groups + kGroups - 1) / kGroups, [&](Index k) {
    const Index first = k * kGroups;
    sparse_dots_slice(s, a, b, n, first, std::min(kGroups, s.groups - first), d);
  });
}

inline void transpose_strip(const float* x, Index rows, Index cols, Index ldx, float* y,
                            Index ldy) {
  GRAFT_DISPATCH(store_transposed)(x, ldx, rows, cols, 1, 0, y, ldy);
}
inline void transpose_strip(const double* x, Index rows, Index cols, Index ldx, double* y,
                            Index ldy) {
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) y[j * ldy + i] = x[i * ldx + j];
}
template <class T>
void transpose(const T* x, Index rows, Index cols, Index ldx, T* y, Index ldy) {
  constexpr Index kStrip = 64;
  ThreadPool::global().parallel_for((cols + kStrip - 1) / kStrip, [&](Index strip) {
    const Index first = strip * kStrip;
    transpose_strip(x + first, rows, std::min(kStrip, cols - first), ldx, y + first * ldy, ldy);
  });
}

}  // namespace detail

GRAFT_KERNEL void sparse_rows(const SparseGroups& s, const float* values, const float* x, Index n,
                              float* y) {
  detail::sparse_rows(s, values, x, n, y);
}
GRAFT_KERNEL void sparse_rows(const SparseGroups& s, const double* values, const double* x, Index n,
                              double* y) {
  detail::sparse_rows(s, values, x, n, y);
}
GRAFT_KERNEL void sparse_dots(const SparseGroups& s, const float* a, const float* b, Index n,
                              float* d) {
  detail::sparse_dots(s, a, b, n, d);
}
GRAFT_KERNEL void sparse_dots(const SparseGroups& s, const double* a, const double* b, Index n,
                              double* d) {
  detail::sparse_dots(s, a, b, n, d);
}
GRAFT_KERNEL void transpose(const float* x, Index rows, Index cols, Index ldx, float* y,
                            Index ldy) {
  detail::transpose(x, rows, cols, ldx, y, ldy);
}
GRAFT_KERNEL void transpose(const double* x, Index rows, Index cols, Index ldx, double* y,
                            Index ldy) {
  detail::transpose(x, rows, cols, ldx, y, ldy);
}

}  // namespace graft::inline v0_1::kernels
