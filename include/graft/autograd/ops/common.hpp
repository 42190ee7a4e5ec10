#pragma once

#include <algorithm>

#include "graft/autograd/tape.hpp"
#include "graft/base/thread_pool.hpp"

namespace graft::inline v0_1::detail {

/// The tape of the operands of an operation. @throws ValueError if they are on different tapes.
template <std::floating_point T, class... Rest>
BasicTape<T>& common_tape(const char* operation, const BasicVar<T>& first, const Rest&... rest) {
  if (!first || !(static_cast<bool>(rest) && ...))
    throw ValueError(concat(operation, ": an operand is empty"));
  if (!((&rest.tape() == &first.tape()) && ...))
    throw ValueError(concat(operation, ": the operands are on different tapes"));
  return first.tape();
}

/// Calls f(i0, i1, …) for blocks: splits a large flat loop over the thread pool in chunks of fixed
/// size, so that results do not depend on the number of threads.
template <class F>
void parallel_chunks(Index n, F&& f) {
  constexpr Index kChunk = Index{1} << 14;
  const Index chunks = (n + kChunk - 1) / kChunk;
  if (chunks <= 4) {
    if (n > 0) f(Index{0}, n);
    return;
  }
  ThreadPool::global().parallel_for(chunks, [&](Index c) {
    const Index first = c * kChunk;
    f(first, std::min(n, first + kChunk));
  });
}

}  // namespace graft::inline v0_1::detail
