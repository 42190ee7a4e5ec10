#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "graft/base/types.hpp"

/// The eight tile registers of AMX and the few operations on them that kernels use, twice: as the
/// instructions, and as plain C++ with the same arithmetic. Kernels take either as a template
/// parameter. A tile is 16 rows of 16 words; a word is an f32 or two bf16 values, the first in its
/// low half. Strides are in words; a stride of 0 reads one row 16 times.

namespace graft::inline v0_1::kernels::detail {

inline constexpr Index kTileSide = 16;
inline constexpr Index kTileWords = kTileSide * kTileSide;

/// What ldtilecfg reads: palette 1, and the sizes of eight tiles, all of them whole.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
inline constexpr TileConfig kTileConfig{};

#if defined(__x86_64__)
/// The registers of this thread, configured while the object lives. Needs Isa::amx.
///
/// Written as assembly: the built-in functions take literal numbers only, and the headers that
/// wrap them are large. No compiler uses tile registers on its own, so none are declared as
/// clobbered.
class HardwareTiles {
 public:
  HardwareTiles() noexcept { asm volatile("ldtilecfg %0" : : "m"(kTileConfig)); }
  HardwareTiles(const HardwareTiles&) = delete;
  HardwareTiles& operator=(const HardwareTiles&) = delete;
  ~HardwareTiles() { asm volatile("tilerelease"); }

  template <int Tile>
  __attribute__((always_inline)) void zero() noexcept {
    asm volatile("tilezero {%%tmm%c0|tmm%c0}" : : "i"(Tile));
  }
  template <int Tile>
  __attribute__((always_inline)) void load(const void* from, Index stride) noexcept {
    asm volatile("tileloadd {(%1,%2,1), %%tmm%c0|tmm%c0, [%1+%2*1]}"
                 :
                 : "i"(Tile), "r"(from), "r"(4 * stride)
                 : "memory");
  }
  template <int Tile>
  __attribute__((always_inline)) void store(void* to, Index stride) noexcept {
    asm volatile("tilestored {%%tmm%c0, (%1,%2,1)|[%1+%2*1], tmm%c0}"
                 :
                 : "i"(Tile), "r"(to), "r"(4 * stride)
                 : "memory");
  }
  /// C += A B.
  template <int C, int A, int B>
  __attribute__((always_inline)) void dot() noexcept {
    asm volatile("tdpbf16ps {%%tmm%c2, %%tmm%c1, %%tmm%c0|tmm%c0, tmm%c1, tmm%c2}"
                 :
                 : "i"(C), "i"(A), "i"(B));
  }
};
#endif

/// The same in plain C++.
class PortableTiles {
 public:
  template <int Tile>
  void zero() noexcept {
    std::memset(words_[Tile], 0, sizeof words_[Tile]);
  }
  template <int Tile>
  void load(const void* from, Index stride) noexcept {
    for (Index row = 0; row < kTileSide; ++row)
      std::memcpy(words_[Tile][row], static_cast<const char*>(from) + 4 * stride * row, 64);
  }
  template <int Tile>
  void store(void* to, Index stride) noexcept {
    for (Index row = 0; row < kTileSide; ++row)
      std::memcpy(static_cast<char*>(to) + 4 * stride * row, words_[Tile][row], 64);
  }
  /// C += A B as TDPBF16PS does it (Intel SDM, volume 2): an element sums the products of the first
  /// values of its pairs and, apart, those of the second ones, then both sums are added, then C.
  /// Every step rounds once, to nearest even; denormal numbers count as zero and become zero.
  template <int C, int A, int B>
  void dot() noexcept {
    float right[kTileSide][2 * kTileSide];
    for (Index k = 0; k < kTileSide; ++k) {
      for (Index j = 0; j < kTileSide; ++j) {
        right[k][j] = first_of(words_[B][k][j]);
        right[k][kTileSide + j] = second_of(words_[B][k][j]);
      }
    }
    for (Index i = 0; i < kTileSide; ++i) {
      float sums[2 * kTileSide] = {};
      for (Index k = 0; k < kTileSide; ++k) {
        const double first = first_of(words_[A][i][k]), second = second_of(words_[A][i][k]);
        // A product of bf16 values is exact in double, and its sum with an f32 rounds to f32 as if
        // it had been exact too.
        for (Index j = 0; j < kTileSide; ++j)
          sums[j] = flushed(static_cast<float>(first * static_cast<double>(right[k][j]) +
                                               static_cast<double>(sums[j])));
        for (Index j = kTileSide; j < 2 * kTileSide; ++j)
          sums[j] = flushed(static_cast<float>(second * static_cast<double>(right[k][j]) +
                                               static_cast<double>(sums[j])));
      }
      for (Index j = 0; j < kTileSide; ++j) {
        std::uint32_t& word = words_[C][i][j];
        const float both = flushed(sums[j] + sums[kTileSide + j]);
        word = std::bit_cast<std::uint32_t>(flushed(flushed(std::bit_cast<float>(word)) + both));
      }
    }
  }

 private:
  /// Zero of the same sign for a denormal number.
  static float flushed(float v) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(v);
    return std::bit_cast<float>((bits & 0x7f800000u) != 0 ? bits : bits & 0x80000000u);
  }
  static float first_of(std::uint32_t pair) noexcept {
    return flushed(std::bit_cast<float>(pair << 16));
  }
  static float second_of(std::uint32_t pair) noexcept {
    return flushed(std::bit_cast<float>(pair & 0xffff0000u));
  }

  alignas(64) std::uint32_t words_[8][kTileSide][kTileSide] = {};
};

}  // namespace graft::inline v0_1::kernels::detail
