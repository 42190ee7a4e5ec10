#include "graft/quant/dot.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/support.hpp"

namespace {

using graft::Index;
using graft::quant::Format;
using kernel_tests::for_each_isa;
using kernel_tests::normal_values;

const std::vector<Format> kFormats = {Format::f16,  Format::bf16, Format::q4_0, Format::q4_1,
                                      Format::q8_0, Format::q4_k, Format::q6_k};

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

/// Rows of random blocks with finite scales, `gap` bytes between them, and their values.
struct Weight {
  Format format;
  Index rows, columns, row_bytes, stride;
  std::vector<std::uint8_t> bytes;
  std::vector<float> values;

  Weight(Format f, Index r, Index c, Index gap, unsigned seed)
      : format(f),
        rows(r),
        columns(c),
        row_bytes(graft::quant::row_bytes(f, c)),
        stride(row_bytes + gap),
        bytes(size_of(r * stride)),
        values(size_of(r * c)) {
    std::mt19937 random(seed);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
    // No f16 is infinite or NaN, whether it lies at an even or an odd byte, and no bf16 is huge.
    for (auto& byte : bytes) byte &= 0xBB;
    decode();
  }
  void decode() {
    for (Index row = 0; row < rows; ++row)
      graft::quant::decode(format, bytes.data() + row * stride, columns,
                           values.data() + row * columns);
  }
  std::vector<float> times(const std::vector<float>& x, Index m, Index ldx, Index ldy) const {
    std::vector<float> y(size_of(m * ldy), -7.0F);
    const auto dot = graft::quant::row_dot(format, columns);
    REQUIRE(dot != nullptr);
    dot(bytes.data(), stride, rows, columns, x.data(), m, ldx, y.data(), ldy);
    return y;
  }
};

}  // namespace

TEST_CASE("products with stored rows equal those with the decoded ones") {
  for (const Format format : kFormats) {
    CAPTURE(graft::quant::format_info(format).name);
    const Index block = std::max<Index>(32, graft::quant::format_info(format).block_elements);
    std::mt19937 random(static_cast<unsigned>(format) + 1);
    for (const Index m : {1, 2, 3, 4, 5, 8}) {
      const Index rows = 1 + static_cast<Index>(random() % 11);
      const Index columns =
          block * (1 + static_cast<Index>(random() % static_cast<unsigned>(2500 / block)));
      const Index ldx = columns + static_cast<Index>(random() % 3), ldy = rows + m % 2;
      CAPTURE(m, rows, columns);
      const Weight w(format, rows, columns, m % 3, static_cast<unsigned>(random()));
      const auto x = normal_values<float>(m * ldx, static_cast<unsigned>(random()));
      for_each_isa([&](const char* isa) {
        CAPTURE(isa);
        const auto y = w.times(x, m, ldx, ldy);
        for (Index i = 0; i < m; ++i) {
          for (Index j = 0; j < rows; ++j) {
            double sum = 0, size = 0;
            for (Index l = 0; l < columns; ++l) {
              const double term = static_cast<double>(x[size_of(i * ldx + l)]) *
                                  static_cast<double>(w.values[size_of(j * columns + l)]);
              sum += term;
              size += std::abs(term);
            }
            const auto found = static_cast<double>(y[size_of(i * ldy + j)]);
            REQUIRE(std::abs(found - sum) <= 1e-6 * size);
          }
          if (ldy > rows) REQUIRE(y[size_of(i * ldy + rows)] == -7.0F);
        }
      });
    }
  }
}

TEST_CASE("a row that picks one column gives the decoded weight itself") {
  for (const Format format : kFormats) {
    CAPTURE(graft::quant::format_info(format).name);
    const Weight w(format, 5, 256, 1, 3);
    const Index m = GENERATE(1, 4);
    std::vector<float> x(size_of(256 * m));
    for_each_isa([&](const char* isa) {
      CAPTURE(isa);
      for (Index l = 0; l < 256; ++l) {
        for (Index i = 0; i < m; ++i) x[size_of(i * 256 + l)] = 1.0F;
        const auto y = w.times(x, m, 256, 5);
        for (Index i = 0; i < m; ++i)
          for (Index j = 0; j < 5; ++j)
            REQUIRE(y[size_of(i * 5 + j)] == w.values[size_of(j * 256 + l)]);
        for (Index i = 0; i < m; ++i) x[size_of(i * 256 + l)] = 0.0F;
      }
    });
  }
}

TEST_CASE("infinities and NaN of either factor reach the sums that they belong to") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Format format : kFormats) {
    CAPTURE(graft::quant::format_info(format).name);
    Weight w(format, 6, 512, 0, 4);
    auto x = normal_values<float>(3 * 512, 5);
    x[700] = std::numeric_limits<float>::quiet_NaN();
    x[1100] = infinity;
    for_each_isa([&](const char* isa) {
      CAPTURE(isa);
      const auto y = w.times(x, 3, 512, 6);
      for (std::size_t j = 0; j < 6; ++j) {
        CHECK(std::isfinite(y[j]));
        CHECK(std::isnan(y[6 + j]));
        const float weight = w.values[j * 512 + 1100 - 1024];
        if (weight == 0.0F)
          CHECK(std::isnan(y[12 + j]));
        else
          CHECK(y[12 + j] == std::copysign(infinity, weight));
      }
    });
    if (format == Format::bf16) continue;
    // The f16 scale of the third row's last block, or its last weight, is infinite.
    const Index at = format == Format::f16 ? w.row_bytes - 2
                     : format == Format::q6_k
                         ? w.row_bytes - 2
                         : w.row_bytes - graft::quant::format_info(format).block_bytes;
    w.bytes[size_of(2 * w.stride + at)] = 0x00;
    w.bytes[size_of(2 * w.stride + at + 1)] = 0x7C;
    for_each_isa([&](const char* isa) {
      CAPTURE(isa);
      const auto y = w.times(normal_values<float>(512, 6), 1, 512, 6);
      for (std::size_t j = 0; j < 6; ++j) CHECK(std::isfinite(y[j]) == (j != 2));
    });
  }
}

TEST_CASE("a sum depends neither on the rows beside it nor on those of x") {
  for (const Format format : kFormats) {
    CAPTURE(graft::quant::format_info(format).name);
    const Weight w(format, 9, 768, 0, 8);
    const auto x = normal_values<float>(768, 9);
    for_each_isa([&](const char* isa) {
      CAPTURE(isa);
      const auto all = w.times(x, 1, 768, 9);
      const auto dot = graft::quant::row_dot(format, 768);
      for (Index first = 0; first < 9; ++first) {
        float y[2];
        const Index count = std::min<Index>(2, 9 - first);
        dot(w.bytes.data() + first * w.stride, w.stride, count, 768, x.data(), 1, 768, y, 2);
        for (Index j = 0; j < count; ++j) REQUIRE(y[j] == all[size_of(first + j)]);
      }
    });
  }
}

TEST_CASE("other formats and columns that are no multiple of 32 have no product of their own") {
  CHECK(graft::quant::row_dot(Format::q2_k, 256) == nullptr);
  CHECK(graft::quant::row_dot(Format::f32, 256) == nullptr);
  CHECK(graft::quant::row_dot(Format::bf16, 33) == nullptr);
  CHECK(graft::quant::row_dot(Format::bf16, 64) != nullptr);
}
