#include "graft/adapters/orthogonal/boft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicBOFT;
using graft::BOFT;
using graft::BOFTConfig;

TEST_CASE(
    "BOFT with one, two and three factors begins as the identity, differentiates and merges") {
  for (const auto& config : {BOFTConfig{.block_size = 4}, BOFTConfig{.block_size = 4, .factors = 2},
                             BOFTConfig{.block_size = 0, .blocks = 4, .factors = 3}}) {
    CHECK(checks::change_at_init<BasicBOFT<double>>(config, 5, 16) < 1e-13);
    CHECK(checks::gradient_error<BasicBOFT<double>>(config, 5, 16) < 1e-7);
    CHECK(checks::merge_error<BOFT>(config, 5, 16) < 1e-5);
  }
  CHECK(checks::trained<BOFT>({.block_size = 4, .factors = 2}, 5, 16) == 2 * 16 * 4 + 5);
}

TEST_CASE("BOFT refuses blocks that do not fit") {
  CHECK_THROWS_WITH(checks::trained<BOFT>({.block_size = 5}, 5, 16),
                    Catch::Contains("does not divide"));
  CHECK_THROWS_WITH(checks::trained<BOFT>({.block_size = 4, .factors = 4}, 5, 16),
                    Catch::Contains("butterfly"));
}
