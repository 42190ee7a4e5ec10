// Includes the file GRAFT_FOREACH_FILE once for every instruction set. No include guard.
//
// The file puts everything into `namespace graft::kernels::GRAFT_SIMD_NS` and marks every function
// with GRAFT_SIMD_FN (a kernel) or GRAFT_SIMD_INLINE (a helper that must be inlined). A vector may
// be passed by value only between such functions. Lambdas do not inherit the target: do not use
// them there. A function without the mark does not do either: GCC splits vectors that its target
// lacks before it inlines.
#if GRAFT_X86
#define GRAFT_SIMD_NS avx512
#define GRAFT_SIMD_BYTES 64
#define GRAFT_SIMD_TARGET GRAFT_TARGET_AVX512
#include GRAFT_FOREACH_FILE
#undef GRAFT_SIMD_NS
#undef GRAFT_SIMD_BYTES
#undef GRAFT_SIMD_TARGET

#define GRAFT_SIMD_NS avx2
#define GRAFT_SIMD_BYTES 32
#define GRAFT_SIMD_TARGET GRAFT_TARGET_AVX2
#include GRAFT_FOREACH_FILE
#undef GRAFT_SIMD_NS
#undef GRAFT_SIMD_BYTES
#undef GRAFT_SIMD_TARGET
#endif

#define GRAFT_SIMD_NS baseline
#define GRAFT_SIMD_BYTES 16
#define GRAFT_SIMD_TARGET
#include GRAFT_FOREACH_FILE
#undef GRAFT_SIMD_NS
#undef GRAFT_SIMD_BYTES
#undef GRAFT_SIMD_TARGET

#undef GRAFT_FOREACH_FILE
