#pragma once

#include "graft/base/profile.hpp"
#include "graft/kernels/impl/chunks.hpp"
#include "graft/kernels/impl/gemm_impl.hpp"
#include "graft/kernels/simd.hpp"
#include "graft/kernels/sparse.hpp"

#define GRAFT_FOREACH_FILE "graft/kernels/impl/sparse_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::kernels {

namespace detail {

inline void sparse_rows_slice(const SparseGroups& s, const float* values, const float* x, Index ld,
                              Index count, Index first, Index last, float* y) {
  GRAFT_DISPATCH(sparse_rows_slice)(s, values, x, ld, count, first, last, y);
}
inline void sparse_rows_slice(const SparseGroups& s, const double* values, const double* x,
                              Index ld, Index count, Index first, Index last, double* y) {
  for (Index g = first; g < last; ++g)
    for (Index j = 0; j < count; ++j) {
      double sum = 0;
      for (Index e = s.start[g]; e < s.start[g + 1]; ++e)
        sum += values[s.element[e]] * x[s.other[e] * ld + j];
      y[g * ld + j] = sum;
    }
}
inline void sparse_dots_slice(const SparseGroups& s, const float* a, const float* b, Index ld,
                              Index count, Index first, Index last, float* d) {
  GRAFT_DISPATCH(sparse_dots_slice)(s, a, b, ld, count, first, last, d);
}
inline void sparse_dots_slice(const SparseGroups& s, const double* a, const double* b, Index ld,
                              Index count, Index first, Index last, double* d) {
  for (Index g = first; g < last; ++g)
    for (Index e = s.start[g]; e < s.start[g + 1]; ++e)
      for (Index j = 0; j < count; ++j) d[s.element[e]] += a[g * ld + j] * b[s.other[e] * ld + j];
}

/// A slice of n vectors in a layout.
struct SparseSlice {
  Index first, count, ld;
  bool panels;

  SparseSlice(Index k, Index n, SparseLayout layout)
      : first(k * kSparsePanel),
        count(std::min(kSparsePanel, n - first)),
        ld(layout == SparseLayout::panels ? count : n),
        panels(layout == SparseLayout::panels) {}
  static Index slices(Index n) { return (n + kSparsePanel - 1) / kSparsePanel; }
  /// Where it begins behind the first of all vectors of so many features.
  Index offset(Index features) const { return panels ? first * features : first; }
};

inline constexpr Index kSparseTask = 128;  // groups

template <class T>
void sparse_rows(const SparseGroups& s, const T* values, const T* x, Index n, SparseLayout layout,
                 T* y) {
  const ProfileScope profile("sparse product", 2.0 * s.start[s.groups] * static_cast<double>(n), 0);
  const Index parts = (s.groups + kSparseTask - 1) / kSparseTask;
  ThreadPool::global().parallel_for(SparseSlice::slices(n) * parts, [&](Index task) {
    const SparseSlice slice(task / parts, n, layout);
    const Index first = task % parts * kSparseTask;
    sparse_rows_slice(s, values, x + slice.offset(s.others), slice.ld, slice.count, first,
                      std::min(first + kSparseTask, s.groups), y + slice.offset(s.groups));
  });
}

template <class T>
void sparse_dots(const SparseGroups& s, const T* a, const T* b, Index n, SparseLayout layout,
                 T* d) {
  const ProfileScope profile("sparse gradient", 2.0 * s.start[s.groups] * static_cast<double>(n),
                             0);
  ThreadPool::global().parallel_for((s.groups + kSparseTask - 1) / kSparseTask, [&](Index task) {
    const Index first = task * kSparseTask, last = std::min(first + kSparseTask, s.groups);
    for (Index e = s.start[first]; e < s.start[last]; ++e) d[s.element[e]] = 0;
    for (Index k = 0; k < SparseSlice::slices(n); ++k) {
      const SparseSlice slice(k, n, layout);
      sparse_dots_slice(s, a + slice.offset(s.groups), b + slice.offset(s.others), slice.ld,
                        slice.count, first, last, d);
    }
  });
}

inline void transpose_block(const float* x, Index rows, Index cols, Index ldx, bool add, float* y,
                            Index ldy) {
  GRAFT_DISPATCH(store_transposed)(x, ldx, rows, cols, 1, add ? 1.0F : 0.0F, y, ldy);
}
inline void transpose_block(const double* x, Index rows, Index cols, Index ldx, bool add, double* y,
                            Index ldy) {
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) y[j * ldy + i] = x[i * ldx + j] + (add ? y[j * ldy + i] : 0);
}
template <class T>
void to_sparse_panels(const T* x, Index n, Index features, T* panels) {
  ThreadPool::global().parallel_for(SparseSlice::slices(n), [&](Index k) {
    const SparseSlice slice(k, n, SparseLayout::panels);
    const Index at = slice.offset(features);
    transpose_block(x + at, slice.count, features, features, false, panels + at, slice.ld);
  });
}
template <class T>
void from_sparse_panels(const T* panels, Index n, Index features, bool add, T* y) {
  ThreadPool::global().parallel_for(SparseSlice::slices(n), [&](Index k) {
    const SparseSlice slice(k, n, SparseLayout::panels);
    const Index at = slice.offset(features);
    transpose_block(panels + at, features, slice.count, slice.ld, add, y + at, features);
  });
}

template <class T>
void transpose(const T* x, Index rows, Index cols, Index ldx, T* y, Index ldy) {
  constexpr Index kStrip = 64;
  ThreadPool::global().parallel_for((cols + kStrip - 1) / kStrip, [&](Index strip) {
    const Index first = strip * kStrip;
    transpose_block(x + first, rows, std::min(kStrip, cols - first), ldx, false, y + first * ldy,
                    ldy);
  });
}

}  // namespace detail

GRAFT_KERNEL void sparse_rows(const SparseGroups& s, const float* values, const float* x, Index n,
                              SparseLayout layout, float* y) {
  detail::sparse_rows(s, values, x, n, layout, y);
}
GRAFT_KERNEL void sparse_dots(const SparseGroups& s, const float* a, const float* b, Index n,
                              SparseLayout layout, float* d) {
  detail::sparse_dots(s, a, b, n, layout, d);
}
GRAFT_KERNEL void to_sparse_panels(const float* x, Index n, Index features, float* panels) {
  detail::to_sparse_panels(x, n, features, panels);
}
GRAFT_KERNEL void from_sparse_panels(const float* panels, Index n, Index features, bool add,
                                     float* y) {
  detail::from_sparse_panels(panels, n, features, add, y);
}
GRAFT_KERNEL void sparse_rows(const SparseGroups& s, const double* values, const double* x, Index n,
                              SparseLayout layout, double* y) {
  detail::sparse_rows(s, values, x, n, layout, y);
}
GRAFT_KERNEL void sparse_dots(const SparseGroups& s, const double* a, const double* b, Index n,
                              SparseLayout layout, double* d) {
  detail::sparse_dots(s, a, b, n, layout, d);
}
GRAFT_KERNEL void to_sparse_panels(const double* x, Index n, Index features, double* panels) {
  detail::to_sparse_panels(x, n, features, panels);
}
GRAFT_KERNEL void from_sparse_panels(const double* panels, Index n, Index features, bool add,
                                     double* y) {
  detail::from_sparse_panels(panels, n, features, add, y);
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
