#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"
#include "graft/autograd/ops/shape.hpp"
#include "graft/kernels/sparse.hpp"

namespace graft::inline v0_1 {

/// Where the elements of a sparse matrix [rows, cols] are; a place that occurs twice counts twice.
/// Filled once, not changed after its first use.
struct SparsePattern {
  Index rows = 0, cols = 0;
  std::vector<std::int32_t> row, col;

  Index size() const { return static_cast<Index>(row.size()); }
  /// The elements row by row, and column by column; each in order.
  kernels::SparseGroups by_row() const {
    std::call_once(by_row_.once, [&] { by_row_.fill(row, col, rows, cols); });
    return by_row_.view();
  }
  kernels::SparseGroups by_col() const {
    std::call_once(by_col_.once, [&] { by_col_.fill(col, row, cols, rows); });
    return by_col_.view();
  }

 private:
  struct Order {
    std::once_flag once;
    Index others = 0;
    std::vector<std::int32_t> start, element, other;

    void fill(const std::vector<std::int32_t>& of, const std::vector<std::int32_t>& with,
              Index groups, Index other_groups) {
      others = other_groups;
      start.assign(static_cast<std::size_t>(groups) + 1, 0);
      for (const std::int32_t g : of) ++start[static_cast<std::size_t>(g) + 1];
      for (std::size_t g = 1; g < start.size(); ++g) start[g] += start[g - 1];
      element.resize(of.size());
      other.resize(of.size());
      auto next = start;
      for (std::size_t e = 0; e < of.size(); ++e) {
        const auto at = static_cast<std::size_t>(next[static_cast<std::size_t>(of[e])]++);
        element[at] = static_cast<std::int32_t>(e);
        other[at] = with[e];
      }
    }
    kernels::SparseGroups view() const {
      return {static_cast<Index>(start.size()) - 1, others, start.data(), element.data(),
              other.data()};
    }
  };
  mutable Order by_row_, by_col_;
};

namespace detail {

/// x Sᵀ, added to `base` if there is one.
template <class T>
BasicVar<T> sparse_matmul(const BasicVar<T>* base, const BasicVar<T>& x, const BasicVar<T>& values,
                          std::shared_ptr<const SparsePattern> pattern);

}  // namespace detail

/// x Sᵀ for a sparse S with trained elements: y[…, row_i] += values_i · x[…, col_i]. Costs two
/// operations an element and row of x; S is never written out. x: [..., cols], values: one an
/// element of the pattern, result [..., rows]. Keeps x.
/// @throws ShapeError if the sizes do not fit. Places are not checked.
template <std::floating_point T>
BasicVar<T> sparse_matmul(const BasicVar<T>& x, const BasicVar<T>& values,
                          std::shared_ptr<const SparsePattern> pattern) {
  return detail::sparse_matmul<T>(nullptr, x, values, std::move(pattern));
}

/// base + x Sᵀ, as `sparse_matmul` in one pass over the result.
/// @throws ShapeError if the sizes do not fit. Places are not checked.
template <std::floating_point T>
BasicVar<T> add_sparse_matmul(const BasicVar<T>& base, const BasicVar<T>& x,
                              const BasicVar<T>& values,
                              std::shared_ptr<const SparsePattern> pattern) {
  return detail::sparse_matmul<T>(&base, x, values, std::move(pattern));
}

/// S x for a sparse S and vectors that are the columns of x: [cols, n] to [rows, n]. As
/// `sparse_matmul`, between operations that work feature by feature. Keeps x.
/// @throws ShapeError if the sizes do not fit. Places are not checked.
template <std::floating_point T>
BasicVar<T> sparse_columns(const BasicVar<T>& x, const BasicVar<T>& values,
                           std::shared_ptr<const SparsePattern> pattern);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/sparse_matmul_impl.hpp"
#endif
