#pragma once

#include <cstdint>

#include "graft/kernels/isa.hpp"

/// Products with a sparse matrix whose elements are trained, on n vectors that lie feature by
/// feature.
namespace graft::inline v0_1::kernels {

/// The elements of a sparse matrix group by group (all of one row, or all of one column).
struct SparseGroups {
  Index groups;
  Index others;                 ///< rows of X
  const std::int32_t* start;    ///< groups + 1 places in the two arrays below
  const std::int32_t* element;  ///< number of the value
  const std::int32_t* other;    ///< the row of X that it meets
};

/// How n vectors lie. columns: [features, n]. panels: `kSparsePanel` vectors after the other, each
/// panel [features, vectors in it]: what random elements read of a panel stays in the second cache.
enum class SparseLayout { columns, panels };

inline constexpr Index kSparsePanel = 128;

/// y[g, j] = Σ over the elements of group g, in order: values[element] · x[other, j], for all n
/// vectors. Does not depend on the number of threads.
GRAFT_KERNEL void sparse_rows(const SparseGroups& s, const float* values, const float* x, Index n,
                              SparseLayout layout, float* y);
GRAFT_KERNEL void sparse_rows(const SparseGroups& s, const double* values, const double* x, Index n,
                              SparseLayout layout, double* y);

/// d[element] = Σ_j a[g, j] · b[other, j] for the elements of every group g: the gradient of the
/// values. An element that is in no group is left as it was.
GRAFT_KERNEL void sparse_dots(const SparseGroups& s, const float* a, const float* b, Index n,
                              SparseLayout layout, float* d);
GRAFT_KERNEL void sparse_dots(const SparseGroups& s, const double* a, const double* b, Index n,
                              SparseLayout layout, double* d);

/// The rows of x [n, features] as panels.
GRAFT_KERNEL void to_sparse_panels(const float* x, Index n, Index features, float* panels);
GRAFT_KERNEL void to_sparse_panels(const double* x, Index n, Index features, double* panels);
/// y = the vectors of the panels as rows [n, features], or y += them.
GRAFT_KERNEL void from_sparse_panels(const float* panels, Index n, Index features, bool add,
                                     float* y);
GRAFT_KERNEL void from_sparse_panels(const double* panels, Index n, Index features, bool add,
                                     double* y);

/// y[j, i] = x[i, j]: x [rows, cols] with `ldx` between rows, y [cols, rows] with `ldy`.
GRAFT_KERNEL void transpose(const float* x, Index rows, Index cols, Index ldx, float* y, Index ldy);
GRAFT_KERNEL void transpose(const double* x, Index rows, Index cols, Index ldx, double* y,
                            Index ldy);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/sparse_impl.hpp"
#endif
