#pragma once

#include "graft/version.hpp"

/// Macros that change how graft is compiled. Users may define them, for a whole program only.
///
/// GRAFT_KERNELS_COMPILED   the SIMD kernels, the tape's operations and what else is the same in
///                          every program are declared only; the program links the library
///                          graft::kernels for their bodies, templates for float and double.
///                          Not defined: they are inline functions like everything else.
/// GRAFT_FILES_COMPILED     the same for files and tokenizers: graft::files.
///
/// The environment variable GRAFT_ISA names the instruction set that kernels run with (baseline,
/// avx2, avx512, avx512_bf16, amx, or for tests amx_emulated) in place of the best one there is.

#if !defined(__cpp_concepts) || __cplusplus < 202002L
#error "graft needs C++20"
#endif

/// How a function is declared whose body is in impl/ and in the compiled library: inline where the
/// headers are used alone, plain where the program links the library. A template says nothing; the
/// library's own translation units define GRAFT_KERNELS_IMPLEMENTATION and instantiate it.
#if defined(GRAFT_KERNELS_COMPILED) || defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_KERNEL
#else
#define GRAFT_KERNEL inline
#endif

/// The same of files and text, in graft::files and with GRAFT_FILES_IMPLEMENTATION.
#if defined(GRAFT_FILES_COMPILED) || defined(GRAFT_FILES_IMPLEMENTATION)
#define GRAFT_IO
#else
#define GRAFT_IO inline
#endif
