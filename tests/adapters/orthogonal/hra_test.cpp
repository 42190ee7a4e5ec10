#include "graft/adapters/orthogonal/hra.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicHRA;
using graft::HRA;

TEST_CASE("HRA begins as the identity for even ranks, differentiates and merges") {
  CHECK(checks::change_at_init<BasicHRA<double>>({.rank = 4}) < 1e-12);
  CHECK(checks::change_at_init<BasicHRA<double>>({.rank = 3}) > 0.01);
  for (bool orthogonal : {false, true}) {
    CHECK(checks::gradient_error<BasicHRA<double>>({.rank = 3, .apply_gs = orthogonal}, 7, 13,
                                                   1.0) < 1e-7);
    CHECK(checks::merge_error<HRA>({.rank = 4, .apply_gs = orthogonal}) < 1e-5);
  }
  CHECK(checks::trained<HRA>({.rank = 4}, 10, 12) == 4 * 12);
  CHECK_THROWS_WITH(checks::trained<HRA>({.rank = 0}), Catch::Contains("rank 0"));
}
