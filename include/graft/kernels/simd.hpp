#pragma once

#include <cstdint>

#include "graft/kernels/isa.hpp"

/// Vectors of the compiler's own vector extension, and the few operations that its operators lack.
///
/// Kernels are written once, in a file that `impl/foreach_isa.hpp` includes per instruction set:
///
///     // relu_kernels.hpp
///     namespace graft::kernels::GRAFT_SIMD_NS {
///     GRAFT_SIMD_FN inline void relu(Index n, const float* x, float* y) noexcept {
///       Index i = 0;
///       for (; i + kLanes <= n; i += kLanes) store(y + i, max(load(x + i), broadcast(0.0f)));
///       if (i < n) store_partial(y + i, max(load_partial(x + i, n - i), broadcast(0.0f)), n - i);
///     }
///     }
///     // relu.hpp
///     #define GRAFT_FOREACH_FILE "graft/kernels/impl/relu_kernels.hpp"
///     #include "graft/kernels/impl/foreach_isa.hpp"
///     GRAFT_KERNEL void relu(Index n, const float* x, float* y) noexcept { GRAFT_DISPATCH(relu)(n,
///     x, y); }
///
/// In such a file: Floats, Doubles, Ints are the full-width vectors, kLanes the number of floats in
/// one; operators + - * / & | ^ << >> and comparisons (which give Ints masks) are the compiler's.

#define GRAFT_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,avx2")))
#define GRAFT_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define GRAFT_SIMD_FN GRAFT_SIMD_TARGET
#define GRAFT_SIMD_INLINE GRAFT_SIMD_TARGET inline __attribute__((always_inline))
#define GRAFT_NOINLINE __attribute__((noinline))
#define GRAFT_ALWAYS_INLINE inline __attribute__((always_inline))
/// Unrolls the loop that follows completely (up to 32 rounds).
#if defined(__clang__)
#define GRAFT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GRAFT_UNROLL _Pragma("GCC unroll 32")
#endif
/// Hides from the compiler how a pointer was computed, so that it stays in a register of its own.
#define GRAFT_OPAQUE(pointer) __asm__("" : "+r"(pointer))

/// The function of this name for the active instruction set.
#if GRAFT_X86
#define GRAFT_DISPATCH(function)                                        \
  (::graft::kernels::vector_isa() >= ::graft::kernels::Isa::avx512      \
       ? &::graft::kernels::avx512::function                            \
       : (::graft::kernels::vector_isa() == ::graft::kernels::Isa::avx2 \
              ? &::graft::kernels::avx2::function                       \
              : &::graft::kernels::baseline::function))
#else
#define GRAFT_DISPATCH(function) (&::graft::kernels::baseline::function)
#endif

namespace graft::inline v0_1::kernels {

/// `Vec<T, W>`: W elements of type T in one vector.
template <class T, int W>
struct VecOf {
  typedef T type __attribute__((vector_size(sizeof(T) * W)));
  // The same, at any address: for loads and stores.
  typedef T unaligned __attribute__((vector_size(sizeof(T) * W), aligned(alignof(T)), may_alias));
};
template <class T, int W>
using Vec = typename VecOf<T, W>::type;

}  // namespace graft::inline v0_1::kernels

#define GRAFT_FOREACH_FILE "graft/kernels/impl/simd_ops.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"
