#include "graft/kernels/impl/tiles.hpp"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "graft/kernels/impl/tile_check.hpp"
#include "graft/kernels/isa.hpp"
#include "kernels/tile_trap.hpp"

using graft::Index;
using namespace graft::kernels::detail;

namespace {

using Words = std::vector<std::uint32_t>;

/// Random words of bf16 pairs or f32 values; `special` of 16 are NaN, infinite or denormal.
Words random_words(std::size_t n, unsigned seed, bool pairs, unsigned special = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  constexpr std::uint32_t odd[] = {0x7fc0'0000, 0x7f80'0000, 0xff80'0000, 0x0001'0000,
                                   0x8040'0000, 0x0000'0000, 0x8000'0000, 0x0080'0000};
  const auto value = [&] {
    if (random() % 16 < special) return odd[random() % 8];
    return std::bit_cast<std::uint32_t>(normal(random));
  };
  Words words(n);
  for (auto& word : words) word = pairs ? value() >> 16 | (value() & 0xffff'0000u) : value();
  return words;
}

/// The sum of one element as the manual writes it, step by step: fused multiply-adds of the even
/// and of the odd values, then two additions; denormal numbers are zero before and after each.
float element(const Words& a, Index a_stride, const Words& b, Index b_stride, float c, Index i,
              Index j) {
  const auto flush = [](float v) { return std::fpclassify(v) == FP_SUBNORMAL ? 0.0f * v : v; };
  float sums[2] = {};
  for (Index k = 0; k < 16; ++k) {
    const auto x = a[static_cast<std::size_t>(i * a_stride + k)];
    const auto y = b[static_cast<std::size_t>(k * b_stride + j)];
    sums[0] = flush(std::fma(flush(std::bit_cast<float>(x << 16)),
                             flush(std::bit_cast<float>(y << 16)), sums[0]));
    sums[1] = flush(std::fma(flush(std::bit_cast<float>(x & 0xffff'0000u)),
                             flush(std::bit_cast<float>(y & 0xffff'0000u)), sums[1]));
  }
  return flush(flush(c) + flush(sums[0] + sums[1]));
}

/// Equal bits, or where the order of a sum is not ours to say, within `tolerance`.
bool same(float a, float b, float tolerance) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b)) return true;
  return std::fabs(a - b) <= tolerance && tolerance > 0;
}

/// The dot product of random tiles against `element`.
template <class Tiles>
void check_dot(unsigned special, int scale, float tolerance = 0) {
  std::mt19937 random(special + 1);
  for (unsigned round = 0; round < 20; ++round) {
    const auto stride = [&] { return static_cast<Index>(16 + random() % 20); };
    const Index a_stride = stride(), b_stride = stride(), c_stride = stride();
    const auto size = [](Index s) { return static_cast<std::size_t>(15 * s + 16); };
    auto a = random_words(size(a_stride), 3 * round, true, special);
    const auto b = random_words(size(b_stride), 3 * round + 1, true, special);
    auto c = random_words(size(c_stride), 3 * round + 2, false, special);
    // Small factors and sums: products below the normal range.
    for (auto& word : c)
      word = std::bit_cast<std::uint32_t>(std::ldexp(std::bit_cast<float>(word), scale));
    for (auto& word : a) {
      const float first = std::ldexp(std::bit_cast<float>(word << 16), scale);
      const float second = std::ldexp(std::bit_cast<float>(word & 0xffff'0000u), scale);
      word = std::bit_cast<std::uint32_t>(first) >> 16 |
             (std::bit_cast<std::uint32_t>(second) & 0xffff'0000u);
    }
    auto result = c;
    {
      Tiles tiles;
      tiles.template load<2>(a.data(), a_stride);
      tiles.template load<7>(b.data(), b_stride);
      tiles.template load<1>(c.data(), c_stride);
      tiles.template dot<1, 2, 7>();
      tiles.template store<1>(result.data(), c_stride);
    }
    for (Index i = 0; i < 16; ++i) {
      for (Index j = 0; j < c_stride && i * c_stride + j < static_cast<Index>(c.size()); ++j) {
        const auto at = static_cast<std::size_t>(i * c_stride + j);
        const float before = std::bit_cast<float>(c[at]), after = std::bit_cast<float>(result[at]);
        REQUIRE(same(after, j < 16 ? element(a, a_stride, b, b_stride, before, i, j) : before,
                     tolerance));
      }
    }
  }
}

/// Tiles with another dot product, right for sums that are exact. kSwapped: A and B take each
/// other's place, which is wrong.
template <bool kSwapped>
struct OtherTiles : PortableTiles {
  template <int C, int A, int B>
  void dot() noexcept {
    std::uint32_t a[16][16], b[16][16];
    float c[16][16];
    store<kSwapped ? B : A>(a, 16);
    store<kSwapped ? A : B>(b, 16);
    store<C>(c, 16);
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 16; ++j)
        for (int k = 0; k < 16; ++k)
          c[i][j] += std::bit_cast<float>(a[i][k] << 16) * std::bit_cast<float>(b[k][j] << 16) +
                     std::bit_cast<float>(a[i][k] & 0xffff'0000u) *
                         std::bit_cast<float>(b[k][j] & 0xffff'0000u);
    load<C>(c, 16);
  }
};

}  // namespace

TEST_CASE("Portable tiles add products in the order of TDPBF16PS") {
  check_dot<PortableTiles>(0, 0);
  check_dot<PortableTiles>(3, 0);
  check_dot<PortableTiles>(0, -125);
}

TEST_CASE("Tiles of the processor agree with the manual") {
#if GRAFT_X86
  if (graft::kernels::isa_supported(graft::kernels::Isa::amx)) {
    check_dot<HardwareTiles>(0, 0, 1e-4f);
    check_dot<HardwareTiles>(3, 0, 1e-4f);
    check_dot<HardwareTiles>(0, -125, std::ldexp(1.0f, -118));
  }
#endif
}

TEST_CASE("The tile instructions mean what the portable operations do") {
#if GRAFT_TILE_TRAP
  if (graft::kernels::isa_supported(graft::kernels::Isa::amx)) return;  // tested above
  const kernel_tests::TileTrap trap;
  const int before = trap.instructions();
  check_dot<HardwareTiles>(0, 0);
  check_dot<HardwareTiles>(3, 0);
  CHECK(trap.instructions() == before + 40 * 7);
  CHECK(tiles_agree<HardwareTiles, OtherTiles<false>>());
  {
    HardwareTiles tiles;
    Words out(256, 1u);
    tiles.zero<5>();
    tiles.store<5>(out.data(), 16);
    CHECK(out == Words(256, 0u));
    CHECK(trap.configured());
  }
  CHECK_FALSE(trap.configured());
#endif
}

TEST_CASE("A tile is 16 rows of 64 bytes in what the processor is told") {
  unsigned char bytes[64];
  std::memcpy(bytes, &kTileConfig, sizeof bytes);
  for (std::size_t i = 0; i < 64; ++i) {
    const int expected = i == 0                            ? 1
                         : i >= 16 && i < 32 && i % 2 == 0 ? 64
                         : i >= 48 && i < 56               ? 16
                                                           : 0;
    CHECK(static_cast<int>(bytes[i]) == expected);
  }
}

TEST_CASE("A load with stride 0 repeats a row, and zero clears a tile") {
  const auto row = random_words(16, 5, false);
  Words out(256, 1u);
  PortableTiles tiles;
  tiles.load<3>(row.data(), 0);
  tiles.store<3>(out.data(), 16);
  for (std::size_t i = 0; i < 256; ++i) CHECK(out[i] == row[i % 16]);
  tiles.zero<3>();
  tiles.store<3>(out.data(), 16);
  CHECK(out == Words(256, 0u));
}

TEST_CASE("The check before first use tells wrong tiles from right ones") {
  // Not with the library's own tiles: this file would give the linker an unoptimised copy of them.
  CHECK(tiles_agree<OtherTiles<false>, OtherTiles<false>>());
  CHECK_FALSE(tiles_agree<OtherTiles<true>, OtherTiles<false>>());
  // The block is A B + the term + the bias, row by row.
  TileProbe probe;
  probe.run<OtherTiles<false>>();
  const auto value = [](std::uint32_t word, bool second) {
    return std::bit_cast<float>(second ? word & 0xffff'0000u : word << 16);
  };
  for (std::size_t i = 0; i < 32; ++i) {
    for (std::size_t j = 0; j < 32; ++j) {
      float sum = probe.bias[j];
      for (std::size_t k = 0; k < 96; ++k) {
        // The term takes the other rows of A, and the first step of B again.
        const auto& rows = probe.a[k < 64 ? i / 16 : 1 - i / 16];
        const std::size_t l = k % 64, pair = l / 2;
        sum += value(rows[pair / 16 * 256 + i % 16 * 16 + pair % 16], l % 2 != 0) *
               value(probe.b[pair * 32 + j], l % 2 != 0);
      }
      CHECK(probe.sums[i][j] == sum);
    }
  }
}
