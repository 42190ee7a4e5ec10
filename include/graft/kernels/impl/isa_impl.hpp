#pragma once

#include "graft/kernels/impl/tile_check.hpp"
#include "graft/kernels/isa.hpp"

#if GRAFT_X86 && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace graft::inline v0_1::kernels::detail {

#if GRAFT_X86 && defined(__linux__)
/// The part of amx_works() that asks processor and system.
inline bool amx_permitted() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsXsave = 1u << 27, kBf16 = 1u << 22, kTile = 1u << 24;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsXsave) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kBf16) == 0 || (d & kTile) == 0)
    return false;
  // The system saves tile configuration and tile data of threads.
  constexpr unsigned kTileState = 1u << 17 | 1u << 18;
  asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  if ((a & kTileState) != kTileState) return false;
#if defined(SYS_arch_prctl)
  // Tile data are large: Linux gives room for them to processes that ask.
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

GRAFT_KERNEL bool amx_works() noexcept {
#if GRAFT_X86 && defined(__linux__)
  static const bool works = amx_permitted() && tiles_agree<HardwareTiles>();
  return works;
#else
  return false;
#endif
}

}  // namespace graft::inline v0_1::kernels::detail
