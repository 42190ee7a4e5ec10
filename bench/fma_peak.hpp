// Fused multiply-adds from registers: what the processor can do at best. No include guard.
namespace graft::kernels::GRAFT_SIMD_NS {

/// 48 · kLanes · rounds operations.
GRAFT_SIMD_FN inline float fma_peak(Index rounds) noexcept {
#if GRAFT_SIMD_BYTES == 64
  constexpr int kSums = 24;
#else
  constexpr int kSums = 12;
#endif
  Floats sums[kSums];
  GRAFT_UNROLL
  for (int i = 0; i < kSums; ++i) sums[i] = broadcast(0.1f * static_cast<float>(i));
  const Floats a = broadcast(0.999f), b = broadcast(0.001f);
  for (Index round = 0; round < rounds * 24 / kSums; ++round) {
    GRAFT_UNROLL
    for (int i = 0; i < kSums; ++i) sums[i] = fma(sums[i], a, b);
  }
  Floats sum = sums[0];
  GRAFT_UNROLL
  for (int i = 1; i < kSums; ++i) sum += sums[i];
  return reduce_add(sum);
}

inline Index lanes() noexcept { return kLanes; }

}  // namespace graft::kernels::GRAFT_SIMD_NS
