#pragma once

#include <cmath>
#include <limits>
#include <utility>

#include "graft/base/profile.hpp"
#include "graft/kernels/elementwise.hpp"
#include "graft/kernels/impl/chunks.hpp"
#include "graft/kernels/impl/vector_math.hpp"

namespace graft::inline v0_1::kernels::detail {
enum class Binary { add, sub, mul, axpy };
}

#define GRAFT_FOREACH_FILE "graft/kernels/impl/elementwise_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::kernels::detail {

// Each block function exists for float, by instruction set, and as a plain loop for double.

template <Binary kOp>
void binary_block(const float* a, const float* b, float alpha, float* y, Index n) {
  GRAFT_DISPATCH(template binary_block<kOp>)(a, b, alpha, y, n);
}
template <Binary kOp>
void binary_block(const double* a, const double* b, double alpha, double* y, Index n) {
  for (Index i = 0; i < n; ++i) {
    if constexpr (kOp == Binary::add) y[i] = a[i] + b[i];
    if constexpr (kOp == Binary::sub) y[i] = a[i] - b[i];
    if constexpr (kOp == Binary::mul) y[i] = a[i] * b[i];
    if constexpr (kOp == Binary::axpy) y[i] = b[i] + alpha * a[i];
  }
}

inline void scale_block(float alpha, const float* x, float* y, Index n) {
  GRAFT_DISPATCH(scale_block)(alpha, x, y, n);
}
inline void scale_block(double alpha, const double* x, double* y, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = alpha * x[i];
}

inline void fill_block(float value, float* y, Index n) { GRAFT_DISPATCH(fill_block)(value, y, n); }
inline void fill_block(double value, double* y, Index n) { std::fill_n(y, n, value); }

inline float sum_block(const float* x, Index n) { return GRAFT_DISPATCH(sum_block)(x, n); }
inline double sum_block(const double* x, Index n) {
  double s = 0;
  for (Index i = 0; i < n; ++i) s += x[i];
  return s;
}

inline float dot_block(const float* a, const float* b, Index n) {
  return GRAFT_DISPATCH(dot_block)(a, b, n);
}
inline double dot_block(const double* a, const double* b, Index n) {
  double s = 0;
  for (Index i = 0; i < n; ++i) s += a[i] * b[i];
  return s;
}

/// Value and slope of an activation in double.
struct ActivationPoint {
  double value, slope;
};
inline double sigmoid(double x) {
  const double e = std::exp(-std::abs(x));
  return x < 0 ? e / (1 + e) : 1 / (1 + e);
}
inline ActivationPoint activation_point(Activation act, double x) {
  // Beyond this nothing changes any more, and infinities would meet zeros.
  const double c = std::min(1e4, std::max(-1e4, x));
  switch (act) {
    case Activation::identity:
      return {x, 1};
    case Activation::relu:
      return {x < 0 ? 0.0 : x, x > 0 ? 1.0 : 0.0};
    case Activation::gelu: {
      const double cumulative = 0.5 * std::erfc(-x * 0.70710678118654752440);
      const double density = 0.39894228040143267794 * std::exp(-0.5 * c * c);
      return {(x < 0 ? c : x) * cumulative, cumulative + c * density};
    }
    case Activation::gelu_tanh: {
      const double factor = 1.59576912160573071176;  // 2 √(2/π)
      const double u = factor * (c + 0.044715 * c * c * c);
      const double s = sigmoid(u), complement = sigmoid(-u);
      return {(x < 0 ? c : x) * s, s + c * s * complement * factor * (1 + 3 * 0.044715 * c * c)};
    }
    case Activation::silu: {
      const double s = sigmoid(x), complement = sigmoid(-x);
      return {(x < 0 ? c : x) * s, s * (1 + c * complement)};
    }
    case Activation::sigmoid: {
      const double s = sigmoid(x);
      return {s, s * sigmoid(-x)};
    }
    case Activation::tanh: {
      const double t = std::tanh(x);
      return {t, (1 - t) * (1 + t)};
    }
    case Activation::quick_gelu: {
      const double s = sigmoid(1.702 * x), complement = sigmoid(-1.702 * x);
      return {(x < 0 ? c : x) * s, s * (1 + 1.702 * c * complement)};
    }
  }
  return {x, 1};
}

inline void activation_block(Activation act, const float* x, float* y, Index n) {
  GRAFT_DISPATCH(activation_block)(act, x, y, n);
}
inline void activation_block(Activation act, const double* x, double* y, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = activation_point(act, x[i]).value;
}

inline void activation_backward_block(Activation act, const float* x, const float* dy, float* dx,
                                      Index n) {
  GRAFT_DISPATCH(activation_backward_block)(act, x, dy, dx, n);
}
inline void activation_backward_block(Activation act, const double* x, const double* dy, double* dx,
                                      Index n) {
  for (Index i = 0; i < n; ++i) dx[i] += dy[i] * activation_point(act, x[i]).slope;
}

inline void gated_block(Activation act, const float* gate, const float* up, float* y, Index n) {
  GRAFT_DISPATCH(gated_block)(act, gate, up, y, n);
}
inline void gated_block(Activation act, const double* gate, const double* up, double* y, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = activation_point(act, gate[i]).value * up[i];
}

/// Values of a chunk in f32, in scratch of the thread.
inline std::pair<const float*, const float*> expand_gate_and_up(const std::uint16_t* gate,
                                                                const std::uint16_t* up,
                                                                Index count) {
  struct GateAndUp {};
  float* const scratch = thread_scratch<float, GateAndUp>(2 * count);
  const auto unpack = GRAFT_DISPATCH(unpack_bf16_block);
  unpack(gate, scratch, count);
  unpack(up, scratch + count, count);
  return {scratch, scratch + count};
}

inline void gated_backward_block(Activation act, const float* gate, const float* up,
                                 const float* dy, float* dgate, float* dup, Index n) {
  GRAFT_DISPATCH(gated_backward_block)(act, gate, up, dy, dgate, dup, n);
}
inline void gated_backward_block(Activation act, const double* gate, const double* up,
                                 const double* dy, double* dgate, double* dup, Index n) {
  for (Index i = 0; i < n; ++i) {
    const ActivationPoint p = activation_point(act, gate[i]);
    const double d = dy[i], u = up[i];
    if (dgate != nullptr) dgate[i] = d * u * p.slope;
    if (dup != nullptr) dup[i] = d * p.value;
  }
}

inline void softmax_rows(const float* x, float* y, Index rows, Index n) {
  GRAFT_DISPATCH(softmax_rows)(x, y, rows, n);
}
inline void softmax_rows(const double* x, double* y, Index rows, Index n) {
  for (Index r = 0; r < rows; ++r, x += n, y += n) {
    double largest = -std::numeric_limits<double>::infinity(), total = 0;
    for (Index i = 0; i < n; ++i) largest = std::max(largest, x[i]);
    if (std::isinf(largest) && largest < 0) largest = 0;
    for (Index i = 0; i < n; ++i) total += y[i] = std::exp(x[i] - largest);
    scale_block(total == 0 ? 0 : 1 / total, y, y, n);
  }
}

inline void softmax_backward_rows(const float* y, const float* dy, float* dx, Index rows, Index n) {
  GRAFT_DISPATCH(softmax_backward_rows)(y, dy, dx, rows, n);
}
inline void softmax_backward_rows(const double* y, const double* dy, double* dx, Index rows,
                                  Index n) {
  for (Index r = 0; r < rows; ++r, y += n, dy += n, dx += n) {
    const double mean = dot_block(y, dy, n);
    for (Index i = 0; i < n; ++i) dx[i] += y[i] * (dy[i] - mean);
  }
}

/// Σ over at most 64 blocks of block(first, count), each summed by one thread, together in order.
template <class Block>
double blocked_sum(Index n, const Block& block) {
  constexpr Index kBlocks = 64;
  const Index size = std::max(kChunkElements, (n + kBlocks * 64 - 1) / (kBlocks * 64) * 64);
  const Index blocks = (n + size - 1) / size;
  double partial[kBlocks] = {};
  auto run = [&](Index b) { partial[b] = block(b * size, std::min(size, n - b * size)); };
  if (n <= kSerialElements) {
    for (Index b = 0; b < blocks; ++b) run(b);
  } else {
    ThreadPool::global().parallel_for(blocks, run);
  }
  double total = 0;
  for (Index b = 0; b < blocks; ++b) total += partial[b];
  return total;
}

}  // namespace graft::inline v0_1::kernels::detail

namespace graft::inline v0_1::kernels {

template <class T>
void add(const T* a, const std::type_identity_t<T>* b, std::type_identity_t<T>* y, Index n) {
  const ProfileScope profile("add", 0, 3.0 * sizeof(T) * static_cast<double>(n));
  detail::for_chunks(n, [&](Index i, Index count) {
    detail::binary_block<detail::Binary::add>(a + i, b + i, T{1}, y + i, count);
  });
}
template <class T>
void sub(const T* a, const std::type_identity_t<T>* b, std::type_identity_t<T>* y, Index n) {
  const ProfileScope profile("subtract", 0, 3.0 * sizeof(T) * static_cast<double>(n));
  detail::for_chunks(n, [&](Index i, Index count) {
    detail::binary_block<detail::Binary::sub>(a + i, b + i, T{1}, y + i, count);
  });
}
template <class T>
void mul(const T* a, const std::type_identity_t<T>* b, std::type_identity_t<T>* y, Index n) {
  const ProfileScope profile("multiply", 0, 3.0 * sizeof(T) * static_cast<double>(n));
  detail::for_chunks(n, [&](Index i, Index count) {
    detail::binary_block<detail::Binary::mul>(a + i, b + i, T{1}, y + i, count);
  });
}
template <class T>
void axpy(std::type_identity_t<T> alpha, const T* x, std::type_identity_t<T>* y, Index n) {
  const ProfileScope profile("add scaled", 0, 3.0 * sizeof(T) * static_cast<double>(n));
  detail::for_chunks(n, [&](Index i, Index count) {
    detail::binary_block<detail::Binary::axpy>(x + i, y + i, alpha, y + i, count);
  });
}
template <class T>
void scale(std::type_identity_t<T> alpha, const T* x, std::type_identity_t<T>* y, Index n) {
  const ProfileScope profile("scale", 0, 2.0 * sizeof(T) * static_cast<double>(n));
  detail::for_chunks(
      n, [&](Index i, Index count) { detail::scale_block(alpha, x + i, y + i, count); });
}
template <class T>
void fill(std::type_identity_t<T> value, T* y, Index n) {
  const ProfileScope profile("fill", 0, 1.0 * sizeof(T) * static_cast<double>(n));
  detail::for_chunks(n, [&](Index i, Index count) { detail::fill_block(value, y + i, count); });
}
GRAFT_KERNEL void pack_bf16(const float* x, std::uint16_t* y, Index n) {
  const ProfileScope profile("round to bf16", 0, 6.0 * static_cast<double>(n));
  const auto pack = GRAFT_DISPATCH(pack_bf16_block);
  detail::for_chunks(n, [&](Index i, Index count) { pack(x + i, y + i, count); });
}
GRAFT_KERNEL void unpack_bf16(const std::uint16_t* x, float* y, Index n) {
  const ProfileScope profile("expand bf16", 0, 6.0 * static_cast<double>(n));
  const auto unpack = GRAFT_DISPATCH(unpack_bf16_block);
  detail::for_chunks(n, [&](Index i, Index count) { unpack(x + i, y + i, count); });
}
template <class T>
T sum(const T* x, Index n) {
  return static_cast<T>(detail::blocked_sum(
      n, [&](Index i, Index count) { return detail::sum_block(x + i, count); }));
}
template <class T>
T dot(const T* a, const std::type_identity_t<T>* b, Index n) {
  return static_cast<T>(detail::blocked_sum(
      n, [&](Index i, Index count) { return detail::dot_block(a + i, b + i, count); }));
}

template <class T>
void activation_forward(Activation act, const T* x, std::type_identity_t<T>* y, Index n) {
  const ProfileScope profile("activation", 0, 2.0 * sizeof(T) * static_cast<double>(n));
  detail::for_chunks(
      n, [&](Index i, Index count) { detail::activation_block(act, x + i, y + i, count); });
}
template <class T>
void activation_backward(Activation act, const T* x, const std::type_identity_t<T>* dy,
                         std::type_identity_t<T>* dx, Index n) {
  if (dx == nullptr) return;
  const ProfileScope profile("activation gradient", 0, 4.0 * sizeof(T) * static_cast<double>(n));
  detail::for_chunks(n, [&](Index i, Index count) {
    detail::activation_backward_block(act, x + i, dy + i, dx + i, count);
  });
}

template <class T>
void swiglu_forward(Activation act, const T* gate, const std::type_identity_t<T>* up,
                    std::type_identity_t<T>* y, Index n) {
  const ProfileScope profile("gated activation", 0, 3.0 * sizeof(T) * static_cast<double>(n));
  detail::for_chunks(
      n, [&](Index i, Index count) { detail::gated_block(act, gate + i, up + i, y + i, count); });
}
template <class T>
void swiglu_backward(Activation act, const T* gate, const std::type_identity_t<T>* up,
                     const std::type_identity_t<T>* dy, std::type_identity_t<T>* dgate,
                     std::type_identity_t<T>* dup, Index n) {
  const ProfileScope profile("gated activation gradient", 0,
                             5.0 * sizeof(T) * static_cast<double>(n));
  detail::for_chunks(n, [&](Index i, Index count) {
    detail::gated_backward_block(act, gate + i, up + i, dy + i,
                                 dgate == nullptr ? nullptr : dgate + i,
                                 dup == nullptr ? nullptr : dup + i, count);
  });
}

GRAFT_KERNEL void swiglu_forward(Activation act, const std::uint16_t* gate, const std::uint16_t* up,
                                 float* y, Index n) {
  const ProfileScope profile("gated activation", 0, 8.0 * static_cast<double>(n));
  detail::for_chunks(n, [&](Index i, Index count) {
    const auto [g, u] = detail::expand_gate_and_up(gate + i, up + i, count);
    detail::gated_block(act, g, u, y + i, count);
  });
}
GRAFT_KERNEL void swiglu_backward(Activation act, const std::uint16_t* gate,
                                  const std::uint16_t* up, const float* dy, float* dgate,
                                  float* dup, Index n) {
  const ProfileScope profile("gated activation gradient", 0, 16.0 * static_cast<double>(n));
  detail::for_chunks(n, [&](Index i, Index count) {
    const auto [g, u] = detail::expand_gate_and_up(gate + i, up + i, count);
    detail::gated_backward_block(act, g, u, dy + i, dgate == nullptr ? nullptr : dgate + i,
                                 dup == nullptr ? nullptr : dup + i, count);
  });
}

template <class T>
void softmax_forward(const T* x, std::type_identity_t<T>* y, Index rows, Index n) {
  const ProfileScope profile("softmax", 0, 2.0 * sizeof(T) * static_cast<double>(rows * n));
  detail::for_rows(rows, n, [&](Index first, Index count) {
    detail::softmax_rows(x + first * n, y + first * n, count, n);
  });
}
template <class T>
void softmax_backward(const T* y, const std::type_identity_t<T>* dy, std::type_identity_t<T>* dx,
                      Index rows, Index n) {
  if (dx == nullptr) return;
  const ProfileScope profile("softmax gradient", 0,
                             4.0 * sizeof(T) * static_cast<double>(rows * n));
  detail::for_rows(rows, n, [&](Index first, Index count) {
    detail::softmax_backward_rows(y + first * n, dy + first * n, dx + first * n, count, n);
  });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                 \
  template void add<T>(const T*, const T*, T*, Index);                                       \
  template void sub<T>(const T*, const T*, T*, Index);                                       \
  template void mul<T>(const T*, const T*, T*, Index);                                       \
  template void axpy<T>(T, const T*, T*, Index);                                             \
  template void scale<T>(T, const T*, T*, Index);                                            \
  template void fill<T>(T, T*, Index);                                                       \
  template T sum<T>(const T*, Index);                                                        \
  template T dot<T>(const T*, const T*, Index);                                              \
  template void activation_forward<T>(Activation, const T*, T*, Index);                      \
  template void activation_backward<T>(Activation, const T*, const T*, T*, Index);           \
  template void swiglu_forward<T>(Activation, const T*, const T*, T*, Index);                \
  template void swiglu_backward<T>(Activation, const T*, const T*, const T*, T*, T*, Index); \
  template void softmax_forward<T>(const T*, T*, Index, Index);                              \
  template void softmax_backward<T>(const T*, const T*, T*, Index, Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1::kernels
