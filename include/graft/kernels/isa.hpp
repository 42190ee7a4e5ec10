#pragma once

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/config.hpp"

#if defined(__x86_64__)
#define GRAFT_X86 1
#else
#define GRAFT_X86 0
#endif

namespace graft::inline v0_1::kernels {

/// Instruction sets that kernels are compiled for; each one up to amx includes those before it.
/// baseline is what the compiler assumes anyway (SSE2 on x86-64). amx_emulated runs the kernels
/// for AMX tiles in plain C++ beside the best vectors there are: for tests, slow.
enum class Isa { baseline, avx2, avx512, avx512_bf16, amx, amx_emulated };

/// Name as GRAFT_ISA spells it.
constexpr const char* isa_name(Isa isa) noexcept {
  constexpr const char* names[] = {"baseline",    "avx2", "avx512",
                                   "avx512_bf16", "amx",  "amx_emulated"};
  return names[static_cast<int>(isa)];
}

namespace detail {

/// True if the processor has AMX tiles for bf16, the system lets this process use them (it is asked
/// once), and a small product of theirs is right. Needs Isa::avx512_bf16.
GRAFT_KERNEL bool amx_works() noexcept;

}  // namespace detail

/// True if the processor and the system can run code for `isa`.
inline bool isa_supported(Isa isa) noexcept {
  if (isa == Isa::baseline || isa == Isa::amx_emulated) return true;
#if GRAFT_X86
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return false;
  if (isa == Isa::avx2) return true;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return false;
  if (isa == Isa::avx512) return true;
  if (!__builtin_cpu_supports("avx512bf16")) return false;
  return isa == Isa::avx512_bf16 || detail::amx_works();
#else
  return false;
#endif
}

namespace detail {

inline constexpr Isa kVectorIsas[] = {Isa::avx512_bf16, Isa::avx512, Isa::avx2, Isa::baseline};

/// The best vectors that go with `isa`.
inline Isa vectors_beside(Isa isa) noexcept {
  if (isa < Isa::amx) return isa;
  for (Isa vectors : kVectorIsas)
    if (isa_supported(vectors)) return vectors;
  return Isa::baseline;
}

inline Isa initial_isa() {
  constexpr Isa all[] = {Isa::baseline,    Isa::avx2, Isa::avx512,
                         Isa::avx512_bf16, Isa::amx,  Isa::amx_emulated};
  if (const char* text = std::getenv("GRAFT_ISA"); text != nullptr && *text != '\0') {
    for (Isa isa : all) {
      if (std::string_view(text) != isa_name(isa)) continue;
      if (!isa_supported(isa))
        throw ValueError(concat("GRAFT_ISA: this processor does not support '", text, "'"));
      return isa;
    }
    throw ValueError(concat(
        "GRAFT_ISA: expected baseline, avx2, avx512, avx512_bf16, amx or amx_emulated, got '", text,
        "'"));
  }
  return isa_supported(Isa::amx) ? Isa::amx : vectors_beside(Isa::amx);
}

struct IsaState {
  explicit IsaState(Isa isa) : active(isa), vectors(vectors_beside(isa)) {}
  std::atomic<Isa> active;
  std::atomic<Isa> vectors;
};

inline IsaState& isa_state() {
  static IsaState state{initial_isa()};
  return state;
}

}  // namespace detail

/// The instruction set that kernels run with: the best one supported, or what GRAFT_ISA names.
/// @throws ValueError at the first call if GRAFT_ISA is unknown or not supported here.
inline Isa active_isa() { return detail::isa_state().active.load(std::memory_order_relaxed); }

/// The vectors that kernels run with, up to avx512_bf16; with tiles, those beside them.
inline Isa vector_isa() { return detail::isa_state().vectors.load(std::memory_order_relaxed); }

/// Changes the instruction set, for tests and comparisons; no kernel may be running.
/// @throws ValueError if `isa` is not supported here.
inline void set_isa(Isa isa) {
  if (!isa_supported(isa))
    throw ValueError(concat("set_isa: this processor does not support '", isa_name(isa), "'"));
  detail::isa_state().active.store(isa, std::memory_order_relaxed);
  detail::isa_state().vectors.store(detail::vectors_beside(isa), std::memory_order_relaxed);
}

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/isa_impl.hpp"
#endif
