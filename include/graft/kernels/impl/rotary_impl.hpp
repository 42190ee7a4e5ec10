#pragma once

#include "graft/base/profile.hpp"
#include "graft/kernels/impl/chunks.hpp"
#include "graft/kernels/impl/vector_math.hpp"
#include "graft/kernels/rotary.hpp"

#define GRAFT_FOREACH_FILE "graft/kernels/impl/rotary_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::kernels::detail {

using RotateHead = void (*)(float*, const float*, const float*, Index, float) noexcept;
inline RotateHead rotate_function(RotaryStyle style, float) {
  return style == RotaryStyle::half ? GRAFT_DISPATCH(rotate_halves)
                                    : GRAFT_DISPATCH(rotate_neighbours);
}

using RotateHeadDouble = void (*)(double*, const double*, const double*, Index, double) noexcept;
template <bool kHalves>
void rotate_head(double* x, const double* cos, const double* sin, Index pairs,
                 double sign) noexcept {
  for (Index i = 0; i < pairs; ++i) {
    double& u = kHalves ? x[i] : x[2 * i];
    double& v = kHalves ? x[i + pairs] : x[2 * i + 1];
    const double s = sin[i] * sign, old = u;
    u = old * cos[i] - v * s;
    v = v * cos[i] + old * s;
  }
}
inline RotateHeadDouble rotate_function(RotaryStyle style, double) {
  return style == RotaryStyle::half ? &rotate_head<true> : &rotate_head<false>;
}

}  // namespace graft::inline v0_1::kernels::detail

namespace graft::inline v0_1::kernels {

template <class T>
void rotary(const T* x, std::type_identity_t<T>* y, Index rows, Index heads, Index head_dim,
            Index ld, const std::type_identity_t<T>* cos, const std::type_identity_t<T>* sin,
            Index rotary_dim, RotaryStyle style, bool inverse) {
  const ProfileScope profile("rotary", 0,
                             2.0 * sizeof(T) * static_cast<double>(rows * heads * rotary_dim));
  const Index pairs = rotary_dim / 2;
  const T sign = inverse ? T{-1} : T{1};
  const auto rotate = detail::rotate_function(style, T{});
  detail::for_rows(rows, heads * head_dim, [&](Index first, Index count) {
    for (Index r = first; r < first + count; ++r) {
      if (x != y) std::copy_n(x + r * ld, heads * head_dim, y + r * ld);
      for (Index h = 0; h < heads; ++h)
        rotate(y + r * ld + h * head_dim, cos + r * pairs, sin + r * pairs, pairs, sign);
    }
  });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template void rotary<float>(const float*, float*, Index, Index, Index, Index, const float*,
                            const float*, Index, RotaryStyle, bool);
template void rotary<double>(const double*, double*, Index, Index, Index, Index, const double*,
                             const double*, Index, RotaryStyle, bool);
#endif

}  // namespace graft::inline v0_1::kernels
