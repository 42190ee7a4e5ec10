#pragma once

#include <cstdint>

#include "graft/kernels/isa.hpp"

/// Products with a sparse matrix whose elements are trained, on matrices that hold one column of
/// the usual activations a row: X [features, n] with n vectors side by side.
namespace graft::inline v0_1::kernels {

/// The elements of a sparse matrix group by group (all of one row, or all of one column).
struct SparseGroups {
  Index groups;
  const std::int32_t* start;    ///< groups + 1 places in the two arrays below
  const std::int32_t* element;  ///< number of the value
  const std::int32_t* other;    ///< the row of X that it meets
};

/// y[g, j] = Σ over the elements of group g, in order: values[element] · x[other, j], for all rows
/// of n values. Group by group the sums stay in registers. Does not depend on the number of
/// threads.
GRAFT_KERNEL void sparse_rows(const SparseGroups& s, const float* values, const float* x, Index n,
                              float* y);
GRAFT_KERNEL void sparse_rows(const SparseGroups& s, const double* values, const double* x, Index n,
                              double* y);

/// d[element] = Σ_j a[g, j] · b[other, j] for the elements of every group g: the gradient of the
/// values.
GRAFT_KERNEL void sparse_dots(const SparseGroups& s, const float* a, const float* b, Index n,
                              float* d);
GRAFT_KERNEL void sparse_dots(const SparseGroups& s, const double* a, const double* b, Index n,
                              double* d);

/// y[j, i] = x[i, j]: x [rows, cols] with `ldx` between rows, y [cols, rows] with `ldy`.
GRAFT_KERNEL void transpose(const float* x, Index rows, Index cols, Index ldx, float* y, Index ldy);
GRAFT_KERNEL void transpose(const double* x, Index rows, Index cols, Index ldx, double* y,
                            Index ldy);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/sparse_impl.hpp"
#endif
