#pragma once

#include <algorithm>
#include <utility>

#include "graft/autograd/ops/windows.hpp"

namespace graft::inline v0_1::detail {

/// Calls see(row, window row) for every row of x, [batch, tokens, width], whose windows of `window`
/// tokens are numbered through, the last of each sequence maybe short.
template <class See>
void each_window_row(Index batch, Index tokens, Index window, See&& see) {
  const Index windows = (tokens + window - 1) / window;
  for (Index b = 0; b < batch; ++b)
    for (Index t = 0; t < tokens; ++t) see(b * tokens + t, b * windows + t / window, t / window);
}

inline Index window_length(Index tokens, Index window, Index number) {
  return std::min(window, tokens - number * window);
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> window_means(const BasicVar<T>& x, Index window) {
  if (x.shape().rank() != 3)
    throw ShapeError(
        concat("window_means: ", x.shape().text(), ", expected [batch, tokens, width]"));
  if (window < 1) throw ValueError(concat("window_means: windows of ", window));
  const Index batch = x.dim(0), tokens = x.dim(1), width = x.dim(2);
  auto y = BasicTensor<T>::zeros({batch, (tokens + window - 1) / window, width});
  const auto share = [=](Index number) {
    return T{1} / static_cast<T>(detail::window_length(tokens, window, number));
  };
  detail::each_window_row(batch, tokens, window, [&](Index row, Index target, Index number) {
    for (Index j = 0; j < width; ++j)
      y[target * width + j] += share(number) * x.value()[row * width + j];
  });
  return x.tape().record(
      std::move(y), x.requires_grad(), [=, gx = x.grad_ref()](const BasicTensor<T>& dy) {
        T* dx = gx.accumulator();
        detail::each_window_row(batch, tokens, window, [&](Index row, Index source, Index number) {
          for (Index j = 0; j < width; ++j)
            dx[row * width + j] += share(number) * dy[source * width + j];
        });
      });
}

template <std::floating_point T>
BasicVar<T> repeat_windows(const BasicVar<T>& x, Index window, Index tokens) {
  if (x.shape().rank() != 3 || window < 1 || x.dim(1) != (tokens + window - 1) / window)
    throw ShapeError(concat("repeat_windows: ", x.shape().text(), " for ", tokens,
                            " tokens in windows of ", window));
  const Index batch = x.dim(0), width = x.dim(2);
  auto y = BasicTensor<T>::empty({batch, tokens, width});
  detail::each_window_row(batch, tokens, window, [&](Index row, Index source, Index) {
    std::copy_n(x.value().data() + source * width, width, y.data() + row * width);
  });
  return x.tape().record(
      std::move(y), x.requires_grad(), [=, gx = x.grad_ref()](const BasicTensor<T>& dy) {
        T* dx = gx.accumulator();
        detail::each_window_row(batch, tokens, window, [&](Index row, Index target, Index) {
          for (Index j = 0; j < width; ++j) dx[target * width + j] += dy[row * width + j];
        });
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                    \
  template BasicVar<T> window_means(const BasicVar<T>&, Index); \
  template BasicVar<T> repeat_windows(const BasicVar<T>&, Index, Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
