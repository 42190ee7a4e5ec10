// Elementwise operations of one instruction set. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

using graft::kernels::Activation;
using graft::kernels::detail::Binary;

template <Binary kOp>
GRAFT_SIMD_INLINE Floats apply_binary(Floats a, Floats b, float alpha) noexcept {
  if constexpr (kOp == Binary::add) return a + b;
  if constexpr (kOp == Binary::sub) return a - b;
  if constexpr (kOp == Binary::mul) return a * b;
  if constexpr (kOp == Binary::axpy) return fma(alpha, a, b);
}

template <Binary kOp>
GRAFT_SIMD_FN inline void binary_block(const float* a, const float* b, float alpha, float* y,
                                       Index n) noexcept {
  Index i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Floats y0 = apply_binary<kOp>(load(a + i), load(b + i), alpha);
    const Floats y1 = apply_binary<kOp>(load(a + i + kLanes), load(b + i + kLanes), alpha);
    store(y + i, y0);
    store(y + i + kLanes, y1);
  }
  for (; i < n; i += kLanes) {
    const Index m = n - i < kLanes ? n - i : kLanes;
    store_partial(y + i, apply_binary<kOp>(load_partial(a + i, m), load_partial(b + i, m), alpha),
                  m);
  }
}

GRAFT_SIMD_FN inline void scale_block(float alpha, const float* x, float* y, Index n) noexcept {
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load(x + i) * alpha);
  if (i < n) store_partial(y + i, load_partial(x + i, n - i) * alpha, n - i);
}

GRAFT_SIMD_FN inline void fill_block(float value, float* y, Index n) noexcept {
  const Floats v = broadcast(value);
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, v);
  if (i < n) store_partial(y + i, v, n - i);
}

/// The upper halves of x rounded to bf16.
GRAFT_SIMD_FN inline void pack_bf16_block(const float* x, std::uint16_t* y, Index n) noexcept {
  using Halves = Vec<std::uint16_t, kLanes>;
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto halves = __builtin_convertvector(round_to_bf16(load(x + i)) >> 16, Halves);
    __builtin_memcpy(y + i, &halves, sizeof halves);
  }
  if (i < n) {
    const Ints bits = round_to_bf16(load_partial(x + i, n - i)) >> 16;
    for (Index j = 0; i + j < n; ++j) y[i + j] = static_cast<std::uint16_t>(bits[j]);
  }
}
GRAFT_SIMD_FN inline void unpack_bf16_block(const std::uint16_t* x, float* y, Index n) noexcept {
  using Halves = Vec<std::uint16_t, kLanes>;
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Halves halves;
    __builtin_memcpy(&halves, x + i, sizeof halves);
    store(y + i, floats_of_bits(__builtin_convertvector(halves, Ints) << 16));
  }
  if (i < n) {
    Ints bits{};
    for (Index j = 0; i + j < n; ++j) bits[j] = static_cast<std::int32_t>(x[i + j]) << 16;
    store_partial(y + i, floats_of_bits(bits), n - i);
  }
}

// Four running sums hide the latency of the additions.
GRAFT_SIMD_FN inline float sum_block(const float* x, Index n) noexcept {
  Floats s[4] = {};
  Index i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    GRAFT_UNROLL
    for (int u = 0; u < 4; ++u) s[u] += load(x + i + u * kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) s[0] += load(x + i);
  if (i < n) s[1] += load_partial(x + i, n - i);
  return sum_of_lanes((s[0] + s[1]) + (s[2] + s[3]));
}

GRAFT_SIMD_FN inline float dot_block(const float* a, const float* b, Index n) noexcept {
  Floats s[4] = {};
  Index i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    GRAFT_UNROLL
    for (int u = 0; u < 4; ++u)
      s[u] = fma(load(a + i + u * kLanes), load(b + i + u * kLanes), s[u]);
  }
  for (; i + kLanes <= n; i += kLanes) s[0] = fma(load(a + i), load(b + i), s[0]);
  if (i < n) s[1] = fma(load_partial(a + i, n - i), load_partial(b + i, n - i), s[1]);
  return sum_of_lanes((s[0] + s[1]) + (s[2] + s[3]));
}

// ---------------------------------------------------------------------------------------------------------
// Activations. x is cut off where the result has long been constant, so that no ∞ · 0 arises.

GRAFT_SIMD_INLINE Floats finite_below(Floats x) noexcept { return max(broadcast(-3.0e38f), x); }
GRAFT_SIMD_INLINE Floats clamped(Floats x, float limit) noexcept {
  return min(broadcast(limit), max(broadcast(-limit), x));
}
// 2 √(2/π) (x + 0.044715 x³)
GRAFT_SIMD_INLINE Floats gelu_tanh_argument(Floats x) noexcept {
  return x * fma(x * x, broadcast(0.0713548163f), broadcast(1.59576912f));
}

template <Activation kAct>
GRAFT_SIMD_INLINE Floats activate(Floats x) noexcept {
  if constexpr (kAct == Activation::identity) return x;
  if constexpr (kAct == Activation::relu) return max(Floats{}, x);
  if constexpr (kAct == Activation::gelu) return finite_below(x) * normal_pair(x).cumulative;
  if constexpr (kAct == Activation::gelu_tanh)
    return finite_below(x) * sigmoid(gelu_tanh_argument(x));
  if constexpr (kAct == Activation::silu) return finite_below(x) * sigmoid(x);
  if constexpr (kAct == Activation::sigmoid) return sigmoid(x);
  if constexpr (kAct == Activation::tanh) return tanh(x);
  if constexpr (kAct == Activation::quick_gelu) return finite_below(x) * sigmoid(x * 1.702f);
}

struct ValueAndSlope {
  Floats value, slope;
};

template <Activation kAct>
GRAFT_SIMD_INLINE ValueAndSlope activate_with_slope(Floats x) noexcept {
  const Floats one = broadcast(1.0f);
  if constexpr (kAct == Activation::identity) return {x, one};
  if constexpr (kAct == Activation::relu)
    return {max(Floats{}, x), select(x > Floats{}, one, Floats{})};
  if constexpr (kAct == Activation::gelu) {
    const NormalPair p = normal_pair(x);
    return {finite_below(x) * p.cumulative, fma(clamped(x, 40.0f), p.density, p.cumulative)};
  }
  if constexpr (kAct == Activation::gelu_tanh) {
    const Floats c = clamped(x, 40.0f);
    const SigmoidPair s = sigmoid_pair(gelu_tanh_argument(c));
    const Floats inner = fma(c * c, broadcast(0.2140644489f), broadcast(1.59576912f));
    return {finite_below(x) * s.value, fma(c * inner, s.value * s.complement, s.value)};
  }
  if constexpr (kAct == Activation::silu) {
    const SigmoidPair s = sigmoid_pair(x);
    return {finite_below(x) * s.value, s.value * fma(clamped(x, 200.0f), s.complement, one)};
  }
  if constexpr (kAct == Activation::sigmoid) {
    const SigmoidPair s = sigmoid_pair(x);
    return {s.value, s.value * s.complement};
  }
  if constexpr (kAct == Activation::tanh) {
    const Floats t = tanh(x);
    return {t, (one - t) * (one + t)};
  }
  if constexpr (kAct == Activation::quick_gelu) {
    const SigmoidPair s = sigmoid_pair(x * 1.702f);
    return {finite_below(x) * s.value,
            s.value * fma(clamped(x, 200.0f) * 1.702f, s.complement, one)};
  }
}

template <Activation kAct>
GRAFT_SIMD_FN inline void activation_loop(const float* x, float* y, Index n) noexcept {
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, activate<kAct>(load(x + i)));
  if (i < n) store_partial(y + i, activate<kAct>(load_partial(x + i, n - i)), n - i);
}

template <Activation kAct>
GRAFT_SIMD_FN inline void activation_backward_loop(const float* x, const float* dy, float* dx,
                                                   Index n) noexcept {
  for (Index i = 0; i < n; i += kLanes) {
    if (i + kLanes <= n) {
      const Floats slope = activate_with_slope<kAct>(load(x + i)).slope;
      store(dx + i, fma(load(dy + i), slope, load(dx + i)));
    } else {
      const Index m = n - i;
      const Floats slope = activate_with_slope<kAct>(load_partial(x + i, m)).slope;
      store_partial(dx + i, fma(load_partial(dy + i, m), slope, load_partial(dx + i, m)), m);
    }
  }
}

template <Activation kAct>
GRAFT_SIMD_FN inline void gated_loop(const float* gate, const float* up, float* y,
                                     Index n) noexcept {
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, activate<kAct>(load(gate + i)) * load(up + i));
  if (i < n)
    store_partial(
        y + i, activate<kAct>(load_partial(gate + i, n - i)) * load_partial(up + i, n - i), n - i);
}

template <Activation kAct>
GRAFT_SIMD_FN inline void gated_backward_loop(const float* gate, const float* up, const float* dy,
                                              float* dgate, float* dup, Index n) noexcept {
  for (Index i = 0; i < n; i += kLanes) {
    const Index m = n - i < kLanes ? n - i : kLanes;
    const bool whole = m == kLanes;
    const Floats g = whole ? load(gate + i) : load_partial(gate + i, m);
    const Floats u = whole ? load(up + i) : load_partial(up + i, m);
    const Floats d = whole ? load(dy + i) : load_partial(dy + i, m);
    const ValueAndSlope a = activate_with_slope<kAct>(g);
    if (whole) {
      if (dgate != nullptr) store(dgate + i, d * u * a.slope);
      if (dup != nullptr) store(dup + i, d * a.value);
    } else {
      if (dgate != nullptr) store_partial(dgate + i, d * u * a.slope, m);
      if (dup != nullptr) store_partial(dup + i, d * a.value, m);
    }
  }
}

#define GRAFT_FOR_ACTIVATION(act, function, ...)            \
  switch (act) {                                            \
    case Activation::identity:                              \
      return function<Activation::identity>(__VA_ARGS__);   \
    case Activation::relu:                                  \
      return function<Activation::relu>(__VA_ARGS__);       \
    case Activation::gelu:                                  \
      return function<Activation::gelu>(__VA_ARGS__);       \
    case Activation::gelu_tanh:                             \
      return function<Activation::gelu_tanh>(__VA_ARGS__);  \
    case Activation::silu:                                  \
      return function<Activation::silu>(__VA_ARGS__);       \
    case Activation::sigmoid:                               \
      return function<Activation::sigmoid>(__VA_ARGS__);    \
    case Activation::tanh:                                  \
      return function<Activation::tanh>(__VA_ARGS__);       \
    case Activation::quick_gelu:                            \
      return function<Activation::quick_gelu>(__VA_ARGS__); \
  }

GRAFT_SIMD_FN inline void activation_block(Activation act, const float* x, float* y,
                                           Index n) noexcept {
    GRAFT_FOR_ACTIVATION(act, activation_loop, x, y, n)} GRAFT_SIMD_FN
    inline void activation_backward_block(Activation act, const float* x, const float* dy,
                                          float* dx, Index n) noexcept {
        GRAFT_FOR_ACTIVATION(act, activation_backward_loop, x, dy, dx, n)} GRAFT_SIMD_FN
    inline void gated_block(Activation act, const float* gate, const float* up, float* y,
                            Index n) noexcept {
        GRAFT_FOR_ACTIVATION(act, gated_loop, gate, up, y, n)} GRAFT_SIMD_FN
    inline void gated_backward_block(Activation act, const float* gate, const float* up,
                                     const float* dy, float* dgate, float* dup, Index n) noexcept {
  GRAFT_FOR_ACTIVATION(act, gated_backward_loop, gate, up, dy, dgate, dup, n)
}
#undef GRAFT_FOR_ACTIVATION

// ---------------------------------------------------------------------------------------------------------
// Softmax of rows.

/// Largest of n values; NaN where one of them is NaN is not promised.
GRAFT_SIMD_FN inline float max_block(const float* x, Index n) noexcept {
  const Floats lowest = broadcast(-__builtin_inff());
  Floats m[4] = {lowest, lowest, lowest, lowest};
  Index i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    GRAFT_UNROLL
    for (int u = 0; u < 4; ++u) m[u] = max(load(x + i + u * kLanes), m[u]);
  }
  float largest = max_of_lanes(max(max(m[0], m[1]), max(m[2], m[3])));
  for (; i + kLanes <= n; i += kLanes) {
    const float lanes = max_of_lanes(load(x + i));
    largest = lanes > largest ? lanes : largest;
  }
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

/// y = e^(x − shift) and Σ y; shift is at least the largest x.
GRAFT_SIMD_FN inline float exp_block(const float* x, float shift, float* y, Index n) noexcept {
  Floats s[2] = {};
  Index i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    GRAFT_UNROLL
    for (int u = 0; u < 2; ++u) {
      const Floats e = exp_nonpositive(load(x + i + u * kLanes) - shift);
      s[u] += e;
      store(y + i + u * kLanes, e);
    }
  }
  for (; i < n; i += kLanes) {
    const Index m = n - i < kLanes ? n - i : kLanes;
    const Ints inside = lane_numbers() < broadcast(static_cast<std::int32_t>(m));
    const Floats e = select(inside, exp_nonpositive(load_partial(x + i, m) - shift), Floats{});
    store_partial(y + i, e, m);
    s[0] += e;
  }
  return sum_of_lanes(s[0] + s[1]);
}

/// Σ e^(x − shift).
GRAFT_SIMD_FN inline float exp_sum_block(const float* x, float shift, Index n) noexcept {
  Floats s[2] = {};
  Index i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    GRAFT_UNROLL
    for (int u = 0; u < 2; ++u) s[u] += exp_nonpositive(load(x + i + u * kLanes) - shift);
  }
  for (; i < n; i += kLanes) {
    const Index m = n - i < kLanes ? n - i : kLanes;
    const Ints inside = lane_numbers() < broadcast(static_cast<std::int32_t>(m));
    s[0] += select(inside, exp_nonpositive(load_partial(x + i, m) - shift), Floats{});
  }
  return sum_of_lanes(s[0] + s[1]);
}

GRAFT_SIMD_FN inline void softmax_rows(const float* x, float* y, Index rows, Index n) noexcept {
  for (Index r = 0; r < rows; ++r, x += n, y += n) {
    const float largest = max_block(x, n);
    const float total = exp_block(x, largest == -__builtin_inff() ? 0.0f : largest, y, n);
    scale_block(total == 0.0f ? 0.0f : 1.0f / total, y, y, n);
  }
}

GRAFT_SIMD_FN inline void softmax_backward_rows(const float* y, const float* dy, float* dx,
                                                Index rows, Index n) noexcept {
  for (Index r = 0; r < rows; ++r, y += n, dy += n, dx += n) {
    const float mean = dot_block(y, dy, n);
    Index i = 0;
    for (; i + kLanes <= n; i += kLanes)
      store(dx + i, fma(load(y + i), load(dy + i) - mean, load(dx + i)));
    for (; i < n; ++i) dx[i] += y[i] * (dy[i] - mean);
  }
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
