#include "graft/quant/panel.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/support.hpp"

using graft::Index;
using graft::quant::Format;

TEST_CASE("A panel holds the bits of the rows that it was decoded from") {
  for (const Format format : {Format::q4_0, Format::q4_1, Format::q8_0, Format::iq4_nl}) {
    CAPTURE(graft::quant::format_info(format).name);
    kernel_tests::for_each_isa([&](const auto& isa) {
      CAPTURE(isa);
      std::mt19937 random(static_cast<unsigned>(format) + 3);
      for (const Index blocks : {1, 2, 3, 9, 18}) {
        const Index columns = 32 * blocks, gap = static_cast<Index>(random() % 5);
        const Index row_bytes = graft::quant::row_bytes(format, columns) + gap;
        // The last row ends where the memory does: nothing behind it may be read.
        std::vector<std::uint8_t> bytes(static_cast<std::size_t>(32 * row_bytes - gap));
        for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
        // No scale or minimum is infinite or NaN.
        const Index block_bytes = graft::quant::format_info(format).block_bytes;
        for (Index r = 0; r < 32; ++r)
          for (Index b = 0; b < blocks; ++b)
            for (const Index high : {1, 3}) {
              if (high == 3 && format != Format::q4_1) continue;
              bytes[static_cast<std::size_t>(r * row_bytes + b * block_bytes + high)] &= 0xBB;
            }
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

TEST_CASE("Formats without a decoder of panels say so") {
  CHECK(graft::quant::panel_decoder(Format::q4_k) == nullptr);
  CHECK(graft::quant::panel_decoder(Format::bf16) == nullptr);
}
