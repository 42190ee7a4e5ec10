#include "graft/quant/int8.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

using graft::Index;
using graft::quant::Int8Matrix;

TEST_CASE("int8 rows are within half a step and reach 127") {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  const Index rows = 13, columns = 37;
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  for (float& value : values) value = normal(random);
  for (Index c = 0; c < columns; ++c) values[static_cast<std::size_t>(5 * columns + c)] = 0.0F;
  for (Index c = 0; c < columns; ++c) values[static_cast<std::size_t>(6 * columns + c)] *= 1e-40F;
  const Int8Matrix matrix = graft::quant::encode_int8(values, rows, columns);
  const std::vector<float> decoded = graft::quant::decode_int8(matrix);
  for (Index r = 0; r < rows; ++r) {
    const float scale = matrix.scales[static_cast<std::size_t>(r)];
    int largest = 0;
    for (Index c = 0; c < columns; ++c) {
      const auto i = static_cast<std::size_t>(r * columns + c);
      largest = std::max(largest, std::abs(static_cast<int>(matrix.codes[i])));
      if (r != 6) CHECK(std::abs(decoded[i] - values[i]) <= 0.5001F * scale);
    }
    CHECK(largest == (r == 5 ? 0 : 127));
  }
  CHECK(matrix.scales[5] == 1.0F);
  CHECK(matrix.bytes() == rows * columns + rows * 4);
}

TEST_CASE("int8 codes decode and encode to themselves") {
  Int8Matrix matrix;
  matrix.rows = 1;
  matrix.columns = 255;
  matrix.scales = {0.25F};
  for (int code = -127; code <= 127; ++code) matrix.codes.push_back(static_cast<std::int8_t>(code));
  const Int8Matrix again = graft::quant::encode_int8(graft::quant::decode_int8(matrix), 1, 255);
  CHECK(again.codes == matrix.codes);
  CHECK(again.scales[0] == 0.25F);
  std::vector<float> part(3);
  graft::quant::decode_int8_row(matrix, 0, 2, 3, part.data());
  CHECK(part == std::vector<float>{-125 * 0.25F, -124 * 0.25F, -123 * 0.25F});
}

TEST_CASE("int8 refuses wrong sizes and values that are not finite") {
  const std::vector<float> values = {1.0F, std::numeric_limits<float>::infinity()};
  CHECK_THROWS_AS(graft::quant::encode_int8(values, 1, 3), graft::ShapeError);
  CHECK_THROWS_AS(graft::quant::encode_int8(values, -1, -2), graft::ShapeError);
  CHECK_THROWS_AS(graft::quant::encode_int8(values, 1, 2), graft::ValueError);
  CHECK(graft::quant::encode_int8({}, 0, 5).codes.empty());
}
