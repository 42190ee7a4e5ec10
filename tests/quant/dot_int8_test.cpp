#include "graft/quant/dot_int8.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "graft/quant/decode.hpp"
#include "kernels/support.hpp"

namespace {

using graft::Index;
using graft::quant::Format;
using kernel_tests::for_each_isa;
using kernel_tests::normal_values;

const std::vector<Format> kFormats = {Format::q4_0, Format::q4_1, Format::q5_0, Format::q5_1,
                                      Format::q8_0, Format::q4_k, Format::q5_k, Format::q6_k};

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

/// A row of x in 8 bits.
struct Row {
  std::vector<std::int8_t> codes;
  std::vector<float> pairs;
  explicit Row(const std::vector<float>& x) : codes(x.size()), pairs(x.size() / 16) {
    graft::kernels::quantise_int8_row(x.data(), std::ssize(x), codes.data(), pairs.data());
  }
  double value(std::size_t l) const {
    return static_cast<double>(pairs[l / 32 * 2]) * static_cast<double>(codes[l]);
  }
};

/// Random blocks with finite scales, `gap` bytes between rows.
struct Weight {
  Format format;
  Index rows, columns, stride;
  std::vector<std::uint8_t> bytes;
  std::vector<float> values;
  Weight(Format f, Index r, Index c, Index gap, unsigned seed)
      : format(f),
        rows(r),
        columns(c),
        stride(graft::quant::row_bytes(f, c) + gap),
        bytes(size_of(r * stride)),
        values(size_of(r * c)) {
    std::mt19937 random(seed);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random()) & 0xBB;
    decode();
  }
  void decode() {
    for (Index row = 0; row < rows; ++row)
      graft::quant::decode(format, bytes.data() + row * stride, columns,
                           values.data() + row * columns);
  }
  std::vector<float> times(const Row& x, Index first = 0, Index count = -1) const {
    if (count < 0) count = rows;
    std::vector<float> y(size_of(count), -7.0F);
    const auto dot = graft::quant::int8_dot(format, columns);
    REQUIRE(dot != nullptr);
    dot(bytes.data() + first * stride, stride, count, columns, x.codes.data(), x.pairs.data(),
        y.data());
    return y;
  }
};

}  // namespace

TEST_CASE("products in 8 bits are those of the rounded row, whatever the instruction set") {
  for (const Format format : kFormats) {
    CAPTURE(graft::quant::format_info(format).name);
    const Index block = graft::quant::format_info(format).block_elements;
    std::mt19937 random(static_cast<unsigned>(format) + 1);
    for (int round = 0; round < 6; ++round) {
      const Index rows = 1 + static_cast<Index>(random() % 11);
      const Index columns =
          block * (1 + static_cast<Index>(random() % static_cast<unsigned>(1800 / block)));
      CAPTURE(rows, columns);
      const Weight w(format, rows, columns, round % 3, static_cast<unsigned>(random()));
      const auto x = normal_values<float>(columns, static_cast<unsigned>(random()));
      std::vector<std::vector<float>> results;
      for_each_isa([&](const char* isa) {
        CAPTURE(isa);
        const Row row(x);
        const auto y = w.times(row);
        for (std::size_t j = 0; j < y.size(); ++j) {
          double sum = 0, size = 0, exact = 0, rounding = 0;
          for (std::size_t l = 0; l < x.size(); ++l) {
            const auto weight = static_cast<double>(w.values[j * x.size() + l]);
            sum += row.value(l) * weight;
            size += std::abs(row.value(l) * weight);
            exact += static_cast<double>(x[l]) * weight;
            rounding += 0.5 * static_cast<double>(row.pairs[l / 32 * 2]) * std::abs(weight);
          }
          // With a minimum, code and minimum may nearly cancel out: parts larger than their sum.
          REQUIRE(std::abs(static_cast<double>(y[j]) - sum) <= 4e-6 * size);
          REQUIRE(std::abs(static_cast<double>(y[j]) - exact) <= 1.001 * rounding + 4e-6 * size);
          REQUIRE(w.times(row, static_cast<Index>(j), 1)[0] == y[j]);
        }
        results.push_back(y);
      });
      // The baseline rounds products, the others do not.
      for (std::size_t i = 2; i < results.size(); ++i) REQUIRE(results[i] == results[1]);
    }
  }
}

TEST_CASE("sums of the largest codes do not saturate") {
  for (const Format format : kFormats) {
    CAPTURE(graft::quant::format_info(format).name);
    Weight w(format, 5, 512, 0, 3);
    const auto info = graft::quant::format_info(format);
    for (const int byte : {0xFF, 0x80, 0x7F}) {
      for (Index at = 0; at < std::ssize(w.bytes); ++at) {
        // The bytes of a block that hold no scales.
        const Index in_block = at % info.block_bytes;
        const Index head = format == Format::q6_k ? 0 : info.block_bytes - info.block_elements / 2;
        const bool code = format == Format::q8_0   ? in_block >= 2
                          : format == Format::q6_k ? in_block < 192
                                                   : in_block >= head;
        if (code) w.bytes[size_of(at)] = static_cast<std::uint8_t>(byte);
      }
      w.decode();
      for (const float sign : {1.0F, -1.0F}) {
        const Row row(std::vector<float>(512, sign));
        for_each_isa([&](const char* isa) {
          CAPTURE(isa, byte, sign);
          const auto y = w.times(row);
          for (std::size_t j = 0; j < y.size(); ++j) {
            double sum = 0, size = 0;
            for (std::size_t l = 0; l < 512; ++l) {
              sum += static_cast<double>(sign * w.values[j * 512 + l]);
              size += std::abs(static_cast<double>(w.values[j * 512 + l]));
            }
            REQUIRE(std::abs(static_cast<double>(y[j]) - sum) <= 1e-5 * size);
          }
        });
      }
    }
  }
}

TEST_CASE("a value that is not finite makes every product with its row NaN") {
  for (const Format format : kFormats) {
    CAPTURE(graft::quant::format_info(format).name);
    const Weight w(format, 3, 256, 0, 4);
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      auto x = normal_values<float>(256, 5);
      x[100] = bad;
      for_each_isa([&](const char* isa) {
        CAPTURE(isa);
        for (const float y : w.times(Row(x))) CHECK(std::isnan(y));
      });
    }
  }
}

TEST_CASE(
    "formats without codes and rows that are no whole number of blocks have no such product") {
  CHECK(graft::quant::int8_dot(Format::q2_k, 256) == nullptr);
  CHECK(graft::quant::int8_dot(Format::bf16, 256) == nullptr);
  CHECK(graft::quant::int8_dot(Format::q4_k, 128) == nullptr);
  CHECK(graft::quant::int8_dot(Format::q4_1, 128) != nullptr);
}
