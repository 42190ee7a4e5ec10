// Rows in 8 bits for one instruction set; see int8_row.hpp. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

/// The nearest integers, half to even. The product before it is rounded by itself: one instruction
/// that no compiler fuses with it.
GRAFT_SIMD_INLINE Ints round_to_ints(Floats v) noexcept {
  Ints r;
#if GRAFT_SIMD_BYTES == 64
  asm("vcvtps2dq {%1, %0|%0, %1}" : "=v"(r) : "v"(v));
#elif GRAFT_SIMD_BYTES == 32
  asm("vcvtps2dq {%1, %0|%0, %1}" : "=x"(r) : "x"(v));
#elif GRAFT_X86
  asm("cvtps2dq {%1, %0|%0, %1}" : "=x"(r) : "x"(v));
#else
  for (int i = 0; i < kLanes; ++i) r[i] = static_cast<std::int32_t>(__builtin_rintf(v[i]));
#endif
  return r;
}

/// The low bytes of the lanes.
GRAFT_SIMD_INLINE void store_bytes(std::int8_t* p, Ints v) noexcept {
#if GRAFT_SIMD_BYTES == 64
  asm("vpmovdb {%1, %0|%0, %1}"
      : "=m"(*reinterpret_cast<VecOf<std::int8_t, 16>::unaligned*>(p))
      : "v"(v));
#else
  GRAFT_UNROLL
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<std::int8_t>(v[i]);
#endif
}

GRAFT_SIMD_FN inline void quantise_int8_row(const float* x, Index n, std::int8_t* codes,
                                            float* pairs) noexcept {
  constexpr int kParts = static_cast<int>(kInt8Block) / kLanes;
  for (Index l = 0; l < n; l += kInt8Block, pairs += 2) {
    Floats v[kParts], top{}, zero{};
    GRAFT_UNROLL
    for (int i = 0; i < kParts; ++i) {
      v[i] = load(x + l + i * kLanes);
      top = max(abs(v[i]), top);
      zero = zero + v[i] * 0.0f;  // NaN where a value is not finite
    }
    const float highest = reduce_max(top), not_finite = reduce_add(zero);
    const bool tiny = highest < 1e-30f;
    const Floats factor = broadcast(tiny ? 0.0f : 127.0f / highest);
    Ints sum{};
    GRAFT_UNROLL
    for (int i = 0; i < kParts; ++i) {
      const Ints q = round_to_ints(not_finite == 0.0f ? v[i] * factor : Floats{});
      store_bytes(codes + l + i * kLanes, q);
      sum += q;
    }
    std::int32_t lanes[kLanes], total = 0;
    store(lanes, sum);
    GRAFT_UNROLL
    for (int i = 0; i < kLanes; ++i) total += lanes[i];
    const float scale = (tiny ? 0.0f : highest / 127.0f) + not_finite;
    pairs[0] = scale;
    pairs[1] = scale * static_cast<float>(total);
  }
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
