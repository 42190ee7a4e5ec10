#include "graft/layers/rope.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "graft/base/error.hpp"

using graft::BasicRope;
using graft::Index;
using graft::RopeConfig;

TEST_CASE("Tables hold cosine and sine of position times theta to the minus 2i over dim") {
  const BasicRope<double> rope({.dim = 8, .theta = 500});
  const auto& tables = rope.tables(2, 3, 4);
  CHECK(tables.cos.shape() == graft::Shape{6, 4});
  for (Index b = 0; b < 2; ++b)
    for (Index t = 0; t < 3; ++t)
      for (Index i = 0; i < 4; ++i) {
        const double angle =
            static_cast<double>(4 + t) * std::pow(500.0, -static_cast<double>(i) / 4);
        CHECK(tables.cos(b * 3 + t, i) == Approx(std::cos(angle)).margin(1e-12));
        CHECK(tables.sin(b * 3 + t, i) == Approx(std::sin(angle)).margin(1e-12));
      }
}

TEST_CASE("Tables are kept until other positions are asked for") {
  const BasicRope<float> rope({.dim = 4});
  const float* first = rope.tables(1, 5, 0).cos.data();
  CHECK(rope.tables(1, 5, 0).cos.data() == first);
  CHECK(rope.tables(1, 1, 5).cos(0, 0) == std::cos(5.0F));
  CHECK(rope.tables(1, 5, 0).cos(4, 0) == std::cos(4.0F));
}

TEST_CASE("Linear stretching divides every angle, Llama 3's the low frequencies only") {
  const RopeConfig plain{.dim = 64, .theta = 500000};
  RopeConfig linear = plain, llama3 = plain;
  linear.type = "linear";
  linear.factor = 4;
  llama3.type = "llama3";
  llama3.factor = 8;
  const auto angle = [](const RopeConfig& config, Index i) {
    return std::asin(BasicRope<double>(config).tables(1, 1, 1).sin(0, i));
  };
  CHECK(angle(linear, 9) == Approx(angle(plain, 9) / 4));
  CHECK(angle(llama3, 3) == Approx(angle(plain, 3)));        // wave shorter than 2048
  CHECK(angle(llama3, 31) == Approx(angle(plain, 31) / 8));  // longer than 8192
  CHECK(angle(llama3, 16) < angle(plain, 16));               // between them
  CHECK(angle(llama3, 16) > angle(plain, 16) / 8);
}

TEST_CASE("A rotary type that is not known is refused by name") {
  CHECK_THROWS_WITH(BasicRope<float>({.dim = 4, .type = "yarn"}), Catch::Contains("yarn"));
}
