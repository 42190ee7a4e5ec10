#pragma once

#include <array>

#include "graft/autograd/ops/unfold.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> unfold(const BasicVar<T>& x, const ConvOptions& options,
                   std::vector<Index>* positions) {
  const auto axes = static_cast<int>(options.kernel.size());
  const Shape& shape = x.shape();
  if (axes < 1 || axes > 3 || shape.rank() != axes + 2 ||
      options.stride.size() != options.kernel.size() ||
      options.padding.size() != options.kernel.size() ||
      options.dilation.size() != options.kernel.size())
    throw ShapeError(concat("unfold: input ", shape.text(), " for a kernel of ", axes, " axes"));
  // Axes that the convolution lacks count as size one.
  std::array<Index, 3> size{1, 1, 1}, kernel{1, 1, 1}, stride{1, 1, 1}, padding{0, 0, 0},
      dilation{1, 1, 1}, out{1, 1, 1};
  for (int i = 0; i < axes; ++i) {
    const auto to = static_cast<std::size_t>(3 - axes + i), from = static_cast<std::size_t>(i);
    size[to] = shape[2 + i];
    kernel[to] = options.kernel[from];
    stride[to] = options.stride[from];
    padding[to] = options.padding[from];
    dilation[to] = options.dilation[from];
    const Index reach = size[to] + 2 * padding[to] - dilation[to] * (kernel[to] - 1) - 1;
    if (kernel[to] < 1 || stride[to] < 1 || dilation[to] < 1 || padding[to] < 0 || reach < 0)
      throw ShapeError(concat("unfold: input ", shape.text(), " leaves no position for axis ", i,
                              " with kernel ", kernel[to], ", stride ", stride[to], ", padding ",
                              padding[to], ", dilation ", dilation[to]));
    out[to] = reach / stride[to] + 1;
  }
  if (positions != nullptr) positions->assign(out.begin() + 3 - axes, out.end());
  const Index batch = shape[0], channels = shape[1], patch = kernel[0] * kernel[1] * kernel[2];
  const Index places = out[0] * out[1] * out[2], plane = size[0] * size[1] * size[2];
  // Calls f(element of the rows, element of x) for every pair inside of x.
  const auto walk = [=](auto&& f) {
    for (Index b = 0; b < batch; ++b)
      for (Index p = 0; p < places; ++p) {
        const Index o0 = p / (out[1] * out[2]), o1 = p / out[2] % out[1], o2 = p % out[2];
        for (Index c = 0; c < channels; ++c)
          for (Index k = 0; k < patch; ++k) {
            const Index i0 =
                o0 * stride[0] - padding[0] + k / (kernel[1] * kernel[2]) * dilation[0];
            const Index i1 = o1 * stride[1] - padding[1] + k / kernel[2] % kernel[1] * dilation[1];
            const Index i2 = o2 * stride[2] - padding[2] + k % kernel[2] * dilation[2];
            if (i0 < 0 || i0 >= size[0] || i1 < 0 || i1 >= size[1] || i2 < 0 || i2 >= size[2])
              continue;
            f(((b * places + p) * channels + c) * patch + k,
              (b * channels + c) * plane + (i0 * size[1] + i1) * size[2] + i2);
          }
      }
  };
  auto rows = BasicTensor<T>::zeros({batch * places, channels * patch});
  const auto vx = x.value();
  walk([&](Index to, Index from) { rows[to] = vx[from]; });
  return x.tape().record(std::move(rows), x.requires_grad(),
                         [gx = x.grad_ref(), walk](const BasicTensor<T>& dy) {
                           T* dx = gx.accumulator();
                           walk([&](Index from, Index to) { dx[to] += dy[from]; });
                         });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) \
  template BasicVar<T> unfold(const BasicVar<T>&, const ConvOptions&, std::vector<Index>*);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
