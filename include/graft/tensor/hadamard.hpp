#pragma once

#include <algorithm>
#include <concepts>

#include "graft/base/error.hpp"
#include "graft/base/thread_pool.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// Butterflies of all strides from `width` to half of rows · width, rows of `width` numbers.
template <std::floating_point T>
void hadamard_rows(T* x, Index rows, Index stride, Index width) {
  for (Index h = 1; h < rows; h *= 2)
    for (Index k = 0; k < rows; k += 2 * h)
      for (Index i = k; i < k + h; ++i) {
        T* a = x + i * stride;
        T* b = a + h * stride;
        for (Index c = 0; c < width; ++c) {
          const T u = a[c], v = b[c];
          a[c] = u + v;
          b[c] = u - v;
        }
      }
}

}  // namespace detail

/// x ← H x with the Walsh–Hadamard matrix of size n in Sylvester's order, entries ±1, not
/// normalised: H H = n I. n log₂ n additions, in two passes over memory. @throws ShapeError unless
/// n is a power of two.
template <std::floating_point T>
void walsh_hadamard(T* x, Index n) {
  if (n < 1 || (n & (n - 1)) != 0)
    throw ShapeError(concat("walsh_hadamard: length ", n, ", expected a power of two"));
  constexpr Index kBlock = 4096, kColumns = 64;  // numbers that stay in the first-level cache
  const Index block = std::min(n, kBlock), blocks = n / block;
  ThreadPool::global().parallel_for(blocks, [&](Index b) {
    T* part = x + b * block;
    const Index short_run = std::min<Index>(block, 16);
    for (Index i = 0; i < block; i += short_run)
      detail::hadamard_rows(part + i, short_run, Index{1}, Index{1});
    detail::hadamard_rows(part, block / short_run, short_run, short_run);
  });
  if (blocks == 1) return;
  ThreadPool::global().parallel_for(block / kColumns, [&](Index c) {
    detail::hadamard_rows(x + c * kColumns, blocks, block, kColumns);
  });
}

}  // namespace graft::inline v0_1
