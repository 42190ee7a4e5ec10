#include "graft/quant/panel.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "kernels/support.hpp"

using graft::Index;
using graft::quant::Format;

namespace {

struct Rows {
  std::vector<std::uint8_t> bytes;
  Index row_bytes;
};

/// Rows of random blocks, none of whose scales and minima is infinite or NaN, with a gap between
/// them. The last row ends where the memory does: nothing behind it may be read.
Rows random_rows(Format format, Index rows, Index blocks, std::mt19937& random) {
  const Index gap = static_cast<Index>(random() % 5);
  const Index row_bytes = graft::quant::row_bytes(format, 32 * blocks) + gap;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(rows * row_bytes - gap));
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
  const Index block_bytes = graft::quant::format_info(format).block_bytes;
  for (Index r = 0; r < rows; ++r)
    for (Index b = 0; b < blocks; ++b)
      for (const Index high : {1, 3}) {
        if (high == 3 && format != Format::q4_1) continue;
        bytes[static_cast<std::size_t>(r * row_bytes + b * block_bytes + high)] &= 0xBB;
      }
  return {std::move(bytes), row_bytes};
}

}  // namespace

TEST_CASE("A panel holds the bits of the rows that it was decoded from") {
  for (const Format format : {Format::q4_0, Format::q4_1, Format::q8_0, Format::iq4_nl}) {
    CAPTURE(graft::quant::format_info(format).name);
    kernel_tests::for_each_isa([&](const auto& isa) {
      CAPTURE(isa);
      std::mt19937 random(static_cast<unsigned>(format) + 3);
      for (const Index blocks : {1, 2, 3, 9, 18}) {
        const Index columns = 32 * blocks;
        const auto [bytes, row_bytes] = random_rows(format, 32, blocks, random);
        const Index first = 32 * static_cast<Index>(random() % static_cast<unsigned>(blocks));
        const Index count = columns - first;
        std::vector<float> panel(static_cast<std::size_t>(32 * count));
        graft::quant::panel_decoder(format)(bytes.data(), row_bytes, first, count, panel.data());
        std::vector<float> row(static_cast<std::size_t>(count));
        for (Index r = 0; r < 32; ++r) {
          graft::quant::row_decoder(format)(bytes.data() + r * row_bytes, first, count, row.data());
          for (Index l = 0; l < count; ++l) {
            CAPTURE(columns, first, r, l);
            REQUIRE(std::memcmp(&panel[static_cast<std::size_t>(32 * l + r)],
                                &row[static_cast<std::size_t>(l)], sizeof(float)) == 0);
          }
        }
      }
    });
  }
}

TEST_CASE("A panel of columns holds the bits of the rows that it was decoded from") {
  for (const Format format : {Format::q4_0, Format::q4_1, Format::q8_0, Format::iq4_nl}) {
    CAPTURE(graft::quant::format_info(format).name);
    kernel_tests::for_each_isa([&](const auto& isa) {
      CAPTURE(isa);
      std::mt19937 random(static_cast<unsigned>(format) + 5);
      for (const Index rows : {1, 3, 4, 15, 16, 33, 50}) {
        const Index blocks = 1 + static_cast<Index>(random() % 3);
        const auto stored = random_rows(format, rows, blocks, random);
        const Index first = 32 * static_cast<Index>(random() % static_cast<unsigned>(blocks));
        std::vector<float> panel(static_cast<std::size_t>(32 * rows));
        graft::quant::column_decoder(format)(stored.bytes.data(), stored.row_bytes, first, rows,
                                             panel.data());
        float row[32];
        for (Index r = 0; r < rows; ++r) {
          graft::quant::row_decoder(format)(stored.bytes.data() + r * stored.row_bytes, first, 32,
                                            row);
          CAPTURE(rows, blocks, first, r);
          REQUIRE(std::memcmp(&panel[static_cast<std::size_t>(32 * r)], row, sizeof row) == 0);
        }
      }
    });
  }
}

TEST_CASE("Formats without a decoder of panels say so") {
  CHECK(graft::quant::panel_decoder(Format::q4_k) == nullptr);
  CHECK(graft::quant::panel_decoder(Format::bf16) == nullptr);
  CHECK(graft::quant::column_decoder(Format::q4_k) == nullptr);
}
