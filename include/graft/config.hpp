#pragma once

#include "graft/version.hpp"

/// Macros that change how graft is compiled. Users may define them, for a whole program only.
///
/// GRAFT_KERNELS_COMPILED   the SIMD kernels are declared only; the program links the library
///                          graft::kernels (one compilation of cmake/kernels.cpp) for their bodies.
///                          Not defined: they are inline functions like everything else.
///
/// The environment variable GRAFT_ISA names the instruction set that kernels run with (baseline,
/// avx2, avx512, avx512_bf16, amx, or for tests amx_emulated) in place of the best one there is.

#if !defined(__cpp_concepts) || __cplusplus < 202002L
#error "graft needs C++20"
#endif
