// Vector operations of one instruction set; see simd.hpp. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

inline constexpr int kLanes = GRAFT_SIMD_BYTES / 4;  // floats or 32-bit integers in a vector
inline constexpr int kDoubleLanes = GRAFT_SIMD_BYTES / 8;

using Floats = Vec<float, kLanes>;
using Doubles = Vec<double, kDoubleLanes>;
using Ints = Vec<std::int32_t, kLanes>;
using Longs = Vec<std::int64_t, kDoubleLanes>;

GRAFT_SIMD_INLINE Floats load(const float* p) noexcept {
  return *reinterpret_cast<const VecOf<float, kLanes>::unaligned*>(p);
}
GRAFT_SIMD_INLINE Doubles load(const double* p) noexcept {
  return *reinterpret_cast<const VecOf<double, kDoubleLanes>::unaligned*>(p);
}
GRAFT_SIMD_INLINE Ints load(const std::int32_t* p) noexcept {
  return *reinterpret_cast<const VecOf<std::int32_t, kLanes>::unaligned*>(p);
}
GRAFT_SIMD_INLINE void store(float* p, Floats v) noexcept {
  *reinterpret_cast<VecOf<float, kLanes>::unaligned*>(p) = v;
}
GRAFT_SIMD_INLINE void store(double* p, Doubles v) noexcept {
  *reinterpret_cast<VecOf<double, kDoubleLanes>::unaligned*>(p) = v;
}
GRAFT_SIMD_INLINE void store(std::int32_t* p, Ints v) noexcept {
  *reinterpret_cast<VecOf<std::int32_t, kLanes>::unaligned*>(p) = v;
}
// x − 0 and not x + 0, which would turn −0 into +0.
GRAFT_SIMD_INLINE Floats broadcast(float x) noexcept { return x - Floats{}; }
GRAFT_SIMD_INLINE Doubles broadcast(double x) noexcept { return x - Doubles{}; }
GRAFT_SIMD_INLINE Ints broadcast(std::int32_t x) noexcept { return x - Ints{}; }

/// The vector 0, 1, 2, …
GRAFT_SIMD_INLINE Ints lane_numbers() noexcept {
  Ints v{};
  GRAFT_UNROLL
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}

/// The first n lanes (0 ≤ n ≤ kLanes) from p, the others zero. Reads no other memory.
GRAFT_SIMD_INLINE Floats load_partial(const float* p, Index n) noexcept {
#if GRAFT_SIMD_BYTES == 64
  return __builtin_ia32_loadups512_mask(p, Floats{}, static_cast<unsigned short>((1u << n) - 1u));
#else
  Floats v{};
  for (Index i = 0; i < n; ++i) v[i] = p[i];
  return v;
#endif
}
/// Stores the first n lanes (0 ≤ n ≤ kLanes).
GRAFT_SIMD_INLINE void store_partial(float* p, Floats v, Index n) noexcept {
#if GRAFT_SIMD_BYTES == 64
  __builtin_ia32_storeups512_mask(p, v, static_cast<unsigned short>((1u << n) - 1u));
#else
  for (Index i = 0; i < n; ++i) p[i] = v[i];
#endif
}

/// a b + c, in one rounding where the instruction set has it.
GRAFT_SIMD_INLINE Floats fma(Floats a, Floats b, Floats c) noexcept { return a * b + c; }
GRAFT_SIMD_INLINE Doubles fma(Doubles a, Doubles b, Doubles c) noexcept { return a * b + c; }
GRAFT_SIMD_INLINE Floats fma(float a, Floats b, Floats c) noexcept { return a * b + c; }

/// mask ? a : b by lanes; mask lanes are 0 or −1, as comparisons give them.
GRAFT_SIMD_INLINE Floats select(Ints mask, Floats a, Floats b) noexcept { return mask ? a : b; }
GRAFT_SIMD_INLINE Ints select(Ints mask, Ints a, Ints b) noexcept { return mask ? a : b; }
GRAFT_SIMD_INLINE Doubles select(Longs mask, Doubles a, Doubles b) noexcept { return mask ? a : b; }
/// a > b ? a : b; b where either is NaN.
GRAFT_SIMD_INLINE Floats max(Floats a, Floats b) noexcept { return a > b ? a : b; }
GRAFT_SIMD_INLINE Doubles max(Doubles a, Doubles b) noexcept { return a > b ? a : b; }
/// a < b ? a : b; b where either is NaN.
GRAFT_SIMD_INLINE Floats min(Floats a, Floats b) noexcept { return a < b ? a : b; }
GRAFT_SIMD_INLINE Doubles min(Doubles a, Doubles b) noexcept { return a < b ? a : b; }

GRAFT_SIMD_INLINE Ints bits_of(Floats v) noexcept { return reinterpret_cast<Ints>(v); }
GRAFT_SIMD_INLINE Floats floats_of_bits(Ints v) noexcept { return reinterpret_cast<Floats>(v); }
/// x rounded to the nearest bf16, ties to even, in the upper half of each lane; NaN stays NaN.
GRAFT_SIMD_INLINE Ints round_to_bf16(Floats x) noexcept {
  const Ints bits = bits_of(x);
  const Ints rounded = bits + 0x7fff + ((bits >> 16) & 1);
  return select(x == x, rounded, bits | 0x00400000) & static_cast<std::int32_t>(0xffff0000u);
}

/// In each part of four lanes: v[i] lane j ↔ v[j] lane i.
GRAFT_SIMD_INLINE void transpose_quads(Floats* v) noexcept {
#if GRAFT_SIMD_BYTES == 64
#define GRAFT_SHUFFLE(a, b, i, j, k, l)                                                      \
  __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8, k + 8, \
                          l + 8, i + 12, j + 12, k + 12, l + 12)
#elif GRAFT_SIMD_BYTES == 32
#define GRAFT_SHUFFLE(a, b, i, j, k, l) \
  __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4)
#else
#define GRAFT_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#endif
  constexpr int kB = kLanes;
  const Floats low01 = GRAFT_SHUFFLE(v[0], v[1], 0, kB, 1, kB + 1);
  const Floats high01 = GRAFT_SHUFFLE(v[0], v[1], 2, kB + 2, 3, kB + 3);
  const Floats low23 = GRAFT_SHUFFLE(v[2], v[3], 0, kB, 1, kB + 1);
  const Floats high23 = GRAFT_SHUFFLE(v[2], v[3], 2, kB + 2, 3, kB + 3);
  v[0] = GRAFT_SHUFFLE(low01, low23, 0, 1, kB, kB + 1);
  v[1] = GRAFT_SHUFFLE(low01, low23, 2, 3, kB + 2, kB + 3);
  v[2] = GRAFT_SHUFFLE(high01, high23, 0, 1, kB, kB + 1);
  v[3] = GRAFT_SHUFFLE(high01, high23, 2, 3, kB + 2, kB + 3);
#undef GRAFT_SHUFFLE
}

/// Truncates towards zero.
GRAFT_SIMD_INLINE Ints to_ints(Floats v) noexcept { return __builtin_convertvector(v, Ints); }
GRAFT_SIMD_INLINE Floats to_floats(Ints v) noexcept { return __builtin_convertvector(v, Floats); }
GRAFT_SIMD_INLINE Floats abs(Floats v) noexcept {
  return floats_of_bits(bits_of(v) & broadcast(std::int32_t{0x7fffffff}));
}

GRAFT_SIMD_INLINE Floats sqrt(Floats v) noexcept {
#if GRAFT_SIMD_BYTES == 64 && defined(__clang__)
  return __builtin_ia32_sqrtps512(v, 4);
#elif GRAFT_SIMD_BYTES == 64
  return __builtin_ia32_sqrtps512_mask(v, Floats{}, static_cast<short>(-1), 4);
#elif GRAFT_SIMD_BYTES == 32
  return __builtin_ia32_sqrtps256(v);
#elif GRAFT_X86
  return __builtin_ia32_sqrtps(v);
#else
  Floats r{};
  for (int i = 0; i < kLanes; ++i) r[i] = __builtin_sqrtf(v[i]);
  return r;
#endif
}

/// Sum of all lanes, by halves: the order does not depend on anything but the width.
GRAFT_SIMD_INLINE float reduce_add(Floats v) noexcept {
  float lanes[kLanes];
  store(lanes, v);
  GRAFT_UNROLL
  for (int half = kLanes / 2; half > 0; half /= 2) {
    GRAFT_UNROLL
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}
/// Largest lane; NaN lanes may be passed over.
GRAFT_SIMD_INLINE float reduce_max(Floats v) noexcept {
  float lanes[kLanes];
  store(lanes, v);
  GRAFT_UNROLL
  for (int half = kLanes / 2; half > 0; half /= 2) {
    GRAFT_UNROLL
    for (int i = 0; i < half; ++i)
      lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  }
  return lanes[0];
}

/// e^x, relative error below 2.5e-7 for results that are normal numbers; 0 below −103.9, inf
/// above 88.8, NaN for NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2 (ln 2 in two parts), a polynomial of degree 6 in r, and 2^n
/// in two factors, so that results go down to denormal numbers.
GRAFT_SIMD_INLINE Floats exp(Floats x) noexcept {
  const Floats magic = broadcast(12582912.0f);  // 1.5 · 2^23: adding it rounds to an integer
  Floats y = max(x, broadcast(-104.0f));        // NaN becomes −104 and is put back below
  y = min(y, broadcast(89.0f));
  const Floats shifted = fma(y, broadcast(1.44269504f), magic);
  const Floats n = shifted - magic;
  Floats r = fma(n, broadcast(-0.693359375f), y);
  r = fma(n, broadcast(2.12194440e-4f), r);
  Floats p = broadcast(1.3981999507e-3f);
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(0.5f));
  p = fma(p, r * r, r) + 1.0f;
  const Ints k = bits_of(shifted) - bits_of(magic);
  const Ints k1 = k >> 1;
  const Floats s1 = floats_of_bits((k1 + 127) << 23);
  const Floats s2 = floats_of_bits((k - k1 + 127) << 23);
  const Floats result = p * s1 * s2;
  return select(x == x, result, x);
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
