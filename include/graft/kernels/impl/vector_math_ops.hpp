// Functions and shuffles of whole vectors, for one instruction set. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

/// a0 b0 a1 b1 … of the first halves.
GRAFT_SIMD_INLINE Floats interleave_low(Floats a, Floats b) noexcept {
#if GRAFT_SIMD_BYTES == 64
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif GRAFT_SIMD_BYTES == 32
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}
/// The same of the second halves.
GRAFT_SIMD_INLINE Floats interleave_high(Floats a, Floats b) noexcept {
#if GRAFT_SIMD_BYTES == 64
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
#elif GRAFT_SIMD_BYTES == 32
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}
/// Elements 0, 2, 4, … of a then b.
GRAFT_SIMD_INLINE Floats even_lanes(Floats a, Floats b) noexcept {
#if GRAFT_SIMD_BYTES == 64
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#elif GRAFT_SIMD_BYTES == 32
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6);
#endif
}
/// Elements 1, 3, 5, … of a then b.
GRAFT_SIMD_INLINE Floats odd_lanes(Floats a, Floats b) noexcept {
#if GRAFT_SIMD_BYTES == 64
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif GRAFT_SIMD_BYTES == 32
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

/// Sum and maximum of all lanes by shuffles, for use once a row.
GRAFT_SIMD_INLINE float sum_of_lanes(Floats v) noexcept {
  GRAFT_UNROLL
  for (int step = 1; step < kLanes; step *= 2) v = interleave_low(v, v) + interleave_high(v, v);
  return v[0];
}
GRAFT_SIMD_INLINE float max_of_lanes(Floats v) noexcept {
  GRAFT_UNROLL
  for (int step = 1; step < kLanes; step *= 2) v = max(interleave_low(v, v), interleave_high(v, v));
  return v[0];
}

/// 2^x for x ≤ 1, relative error below 1e-7 down to 2^-126; exactly 0 from −127 on, NaN for NaN.
///
/// x = n + r with |r| ≤ 1/2 and 2^r by a polynomial with constant term 1 exactly; 2^n is added to
/// the exponent. At the clamp n = −127 and r = 0, so all bits cancel.
GRAFT_SIMD_INLINE Floats exp2_small(Floats x) noexcept {
  const Floats magic = broadcast(12582912.0f);  // 1.5 · 2^23: adding it rounds to an integer
  x = max(broadcast(-127.0f), x);
  const Floats shifted = x + magic;
  const Floats r = x - (shifted - magic);
  Floats p = broadcast(1.545316295e-4f);
  p = fma(p, r, broadcast(1.339086336e-3f));
  p = fma(p, r, broadcast(9.618082557e-3f));
  p = fma(p, r, broadcast(5.550357114e-2f));
  p = fma(p, r, broadcast(2.402265076e-1f));
  p = fma(p, r, broadcast(6.93147188e-1f));
  p = fma(p, r, broadcast(1.0f));
  return floats_of_bits(bits_of(p) + (bits_of(shifted) << 23));
}

/// e^x for x ≤ 0, relative error below 1.1e-7; 0 below −87.33 (where results would be denormal),
/// NaN for NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2 (ln 2 in two parts), e^r by a polynomial, 2^n added to the
/// exponent. Half the work of exp.
GRAFT_SIMD_INLINE Floats exp_nonpositive(Floats x) noexcept {
  const Floats magic = broadcast(12582912.0f);  // 1.5 · 2^23: adding it rounds to an integer
  const Floats lowest = broadcast(-87.3365402f);
  const Floats y = max(lowest, x);
  const Floats shifted = fma(y, broadcast(1.44269504f), magic);
  const Floats n = shifted - magic;
  Floats r = fma(n, broadcast(-0.693359375f), y);
  r = fma(n, broadcast(2.12194440e-4f), r);
  Floats p = broadcast(1.393365e-3f);
  p = fma(p, r, broadcast(8.369155668e-3f));
  p = fma(p, r, broadcast(4.166646493e-2f));
  p = fma(p, r, broadcast(1.66665052e-1f));
  p = fma(p, r, broadcast(5.00000001e-1f));
  p = fma(p, r, broadcast(1.00000001f));
  p = fma(p, r, broadcast(1.0f));
  const Floats result = floats_of_bits(bits_of(p) + (bits_of(shifted) << 23));
  return select(x < lowest, Floats{}, result);
}

GRAFT_SIMD_INLINE Floats copy_sign(Floats magnitude, Floats sign) noexcept {
  const Ints mask = broadcast(std::int32_t{0x7fffffff});
  return floats_of_bits((bits_of(magnitude) & mask) | (bits_of(sign) & ~mask));
}

/// An odd polynomial up to 0.65, (1 − e^(−2|x|)) / (1 + e^(−2|x|)) beyond. Relative error below
/// 3e-7.
GRAFT_SIMD_INLINE Floats tanh(Floats x) noexcept {
  const Floats a = abs(x);
  const Floats z = x * x;
  Floats p = broadcast(-5.923726206e-3f);
  p = fma(p, z, broadcast(2.087346058e-2f));
  p = fma(p, z, broadcast(-5.382375887e-2f));
  p = fma(p, z, broadcast(1.333258371e-1f));
  p = fma(p, z, broadcast(-3.333332702e-1f));
  const Floats low = fma(p * z, x, x);
  const Floats e = exp_nonpositive(a * -2.0f);
  const Floats high = copy_sign((1.0f - e) / (1.0f + e), x);
  return select(a < broadcast(0.65f), low, high);
}

/// s = 1 / (1 + e^−x) and 1 − s, both without cancellation. Relative error below 4e-7.
struct SigmoidPair {
  Floats value, complement;
};
GRAFT_SIMD_INLINE SigmoidPair sigmoid_pair(Floats x) noexcept {
  const Floats e = exp_nonpositive(-abs(x));
  const Floats large = 1.0f / (1.0f + e), small = e * large;
  const Ints negative = x < Floats{};
  return {select(negative, small, large), select(negative, large, small)};
}
GRAFT_SIMD_INLINE Floats sigmoid(Floats x) noexcept { return sigmoid_pair(x).value; }

/// Normal distribution: density φ and cumulative Φ, the latter relatively exact in the left tail.
///
/// Φ(−a) = e^(−a²/2) t P(t) with t = 1 / (1 + a/4), a fit of the scaled complementary error
/// function to 4e-8; what counts beyond is the rounding of a²/2 in the exponent.
struct NormalPair {
  Floats density, cumulative;
};
GRAFT_SIMD_INLINE NormalPair normal_pair(Floats x) noexcept {
  const Floats a = abs(x);
  const Floats e = exp_nonpositive(a * a * -0.5f);
  const Floats t = 1.0f / fma(a, broadcast(0.25f), broadcast(1.0f));
  Floats p = broadcast(2.081489974e-2f);
  p = fma(p, t, broadcast(-8.538928718e-2f));
  p = fma(p, t, broadcast(1.037989796e-1f));
  p = fma(p, t, broadcast(-3.974700614e-2f));
  p = fma(p, t, broadcast(6.827409538e-2f));
  p = fma(p, t, broadcast(5.744621603e-2f));
  p = fma(p, t, broadcast(8.188964232e-2f));
  p = fma(p, t, broadcast(9.343951327e-2f));
  p = fma(p, t, broadcast(9.973739686e-2f));
  p = fma(p, t, broadcast(9.973556103e-2f));
  const Floats tail = e * (p * t);
  return {e * 0.398942280f, select(x < Floats{}, tail, 1.0f - tail)};
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
