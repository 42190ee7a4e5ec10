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

TEST_CASE("Yarn divides low frequencies, ramps to the high ones and scales the tables") {
  RopeConfig config{.dim = 16, .type = "yarn", .factor = 4, .original_positions = 256};
  config.table_scale = 1.138629436111989;
  const auto check = [&](std::vector<double> expected) {
    const auto sines = BasicRope<double>(config).tables(1, 1, 1).sin.clone();
    for (std::size_t i = 0; i < expected.size(); ++i)
      CHECK(sines[static_cast<Index>(i)] == Approx(expected[i]).margin(2e-7));
  };
  // By transformers 5.23.
  check({0.9581236, 0.2893456, 0.071118, 0.0157524, 0.0028466, 0.0009002, 0.0002847, 9e-05});
  config.truncate = false;
  check({0.9581236, 0.2860816, 0.0630463, 0.0109762, 0.0028466, 0.0009002, 0.0002847, 9e-05});
}

TEST_CASE("Dynamic angles and those of two lengths depend on the longest row") {
  RopeConfig config{.dim = 16, .type = "dynamic", .factor = 2, .max_positions = 8};
  const BasicRope<double> dynamic(config);
  CHECK(dynamic.tables(1, 16, 0).sin(1, 1) == Approx(0.2670168).margin(2e-7));
  CHECK(dynamic.tables(1, 8, 0).sin(1, 1) == Approx(0.3109836).margin(2e-7));
  CHECK(dynamic.tables(1, 1, 15).sin(0, 1) !=
        Approx(BasicRope<double>({.dim = 16}).tables(1, 1, 15).sin(0, 1)));

  config = {.dim = 4, .type = "longrope", .original_positions = 4};
  config.short_divisors = {1, 2};
  config.long_divisors = {3, 5};
  config.table_scale = 1.5;
  const BasicRope<double> longrope(config);
  CHECK(longrope.tables(2, 4, 0).sin(7, 0) == Approx(1.5 * std::sin(3.0)));
  CHECK(longrope.tables(1, 5, 0).sin(3, 0) == Approx(1.5 * std::sin(1.0)));
  CHECK(longrope.tables(1, 5, 0).cos(4, 1) == Approx(1.5 * std::cos(4 * 0.01 / 5)));
}

TEST_CASE("A rotary type that is not known, or sizes that it cannot have, are refused by name") {
  CHECK_THROWS_WITH(BasicRope<float>({.dim = 4, .type = "axial"}), Catch::Contains("axial"));
  CHECK_THROWS_WITH(BasicRope<float>({.dim = 4, .type = "longrope"}),
                    Catch::Contains("0 short and 0 long factors for 2"));
  CHECK_THROWS_WITH(BasicRope<float>({.dim = 4, .type = "dynamic"}),
                    Catch::Contains("0 positions"));
}
