#include "graft/kernels/int8_row.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/support.hpp"

namespace {

using graft::Index;
using kernel_tests::for_each_isa;
using kernel_tests::normal_values;

struct Row {
  std::vector<std::int8_t> codes;
  std::vector<float> pairs;
  bool operator==(const Row&) const = default;
};

Row quantised(const std::vector<float>& x) {
  Row row{std::vector<std::int8_t>(x.size()), std::vector<float>(x.size() / 16)};
  graft::kernels::quantise_int8_row(x.data(), std::ssize(x), row.codes.data(), row.pairs.data());
  return row;
}

}  // namespace

TEST_CASE("a row in 8 bits is at most half a step away, and the same for every instruction set") {
  for (const Index n : {32, 64, 576, 1536}) {
    auto x = normal_values<float>(n, static_cast<unsigned>(n), n == 64 ? 1e-20 : 3);
    x[5] = 0.0F;
    std::vector<Row> rows;
    for_each_isa([&](const char* isa) {
      CAPTURE(isa, n);
      rows.push_back(quantised(x));
      const Row& row = rows.back();
      CHECK(row == rows.front());
      for (std::size_t b = 0; b < x.size() / 32; ++b) {
        const float scale = row.pairs[2 * b];
        int sum = 0, largest = 0;
        for (std::size_t l = 32 * b; l < 32 * b + 32; ++l) {
          const int code = row.codes[l];
          sum += code;
          largest = std::max(largest, std::abs(code));
          REQUIRE(std::abs(x[l] - scale * static_cast<float>(code)) <= 0.50001F * scale);
        }
        CHECK(largest == 127);
        CHECK(row.pairs[2 * b + 1] == scale * static_cast<float>(sum));
      }
    });
  }
}

TEST_CASE("halves are rounded to even codes") {
  std::vector<float> x(32, 0.0F);
  x[0] = 127.0F;  // the scale is 1
  x[1] = 0.5F, x[2] = 1.5F, x[3] = 2.5F, x[4] = -0.5F, x[5] = -1.5F;
  for_each_isa([&](const char* isa) {
    CAPTURE(isa);
    const Row row = quantised(x);
    CHECK(row.pairs[0] == 1.0F);
    CHECK(row.codes[1] == 0);
    CHECK(row.codes[2] == 2);
    CHECK(row.codes[3] == 2);
    CHECK(row.codes[4] == 0);
    CHECK(row.codes[5] == -2);
  });
}

TEST_CASE("a block that is not finite has a NaN scale, one of almost nothing is zero") {
  auto x = normal_values<float>(128, 1);
  x[40] = std::numeric_limits<float>::infinity();
  x[70] = std::numeric_limits<float>::quiet_NaN();
  for (std::size_t l = 96; l < 128; ++l) x[l] = 1e-38F;
  for_each_isa([&](const char* isa) {
    CAPTURE(isa);
    const Row row = quantised(x);
    CHECK(std::isfinite(row.pairs[0]));
    CHECK(std::isnan(row.pairs[2]));
    CHECK(std::isnan(row.pairs[4]));
    CHECK(row.pairs[6] == 0.0F);
    CHECK(row.pairs[7] == 0.0F);
  });
}
