#pragma once

#include <algorithm>

#include "graft/base/aligned_buffer.hpp"
#include "graft/base/thread_pool.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1::kernels::detail {

/// Elements of one task. The cut depends on the size alone, so results do not depend on the
/// threads.
inline constexpr Index kChunkElements = 16384;
/// Up to here one thread is faster than waking another.
inline constexpr Index kSerialElements = 65536;

/// f(first, count) over chunks of 0 … n − 1.
template <class F>
void for_chunks(Index n, const F& f) {
  if (n <= kSerialElements) {
    if (n > 0) f(Index{0}, n);
    return;
  }
  ThreadPool::global().parallel_for((n + kChunkElements - 1) / kChunkElements, [&](Index chunk) {
    const Index first = chunk * kChunkElements;
    f(first, std::min(kChunkElements, n - first));
  });
}

/// f(first, count) over groups of rows of `cols` elements.
template <class F>
void for_rows(Index rows, Index cols, const F& f) {
  if (rows <= 0) return;
  if (rows == 1 || rows * cols <= kSerialElements) return f(Index{0}, rows);
  const Index group = std::max(Index{1}, kChunkElements / std::max(Index{1}, cols));
  ThreadPool::global().parallel_for((rows + group - 1) / group, [&](Index task) {
    const Index first = task * group;
    f(first, std::min(group, rows - first));
  });
}

/// Memory of this thread for one purpose, kept from call to call.
template <class T, class Purpose>
T* thread_scratch(Index count) {
  static thread_local AlignedBuffer<T> buffer;
  if (static_cast<Index>(buffer.size()) < count)
    buffer = AlignedBuffer<T>(static_cast<std::size_t>(count));
  return buffer.data();
}

}  // namespace graft::inline v0_1::kernels::detail
