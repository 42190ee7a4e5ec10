#pragma once

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Means over windows of neighbouring tokens, the last one maybe short: [batch, tokens, width] ->
/// [batch, ⌈tokens / window⌉, width]. @throws ShapeError for another rank, ValueError for a window
/// below one
template <std::floating_point T>
BasicVar<T> window_means(const BasicVar<T>& x, Index window);

/// The other way: each window's row for all of its tokens, [batch, ⌈tokens / window⌉, width] ->
/// [batch, tokens, width]. @throws ShapeError if the windows are not those of so many tokens
template <std::floating_point T>
BasicVar<T> repeat_windows(const BasicVar<T>& x, Index window, Index tokens);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/windows_impl.hpp"
#endif
