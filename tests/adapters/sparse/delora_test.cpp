#include "graft/adapters/sparse/delora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicDeLoRA;
using graft::DeLoRA;

TEST_CASE("DeLoRA begins as the identity, differentiates and merges") {
  CHECK(checks::change_at_init<BasicDeLoRA<double>>({.rank = 3}) < 1e-13);
  CHECK(checks::gradient_error<BasicDeLoRA<double>>({.rank = 3}, 7, 13) < 1e-7);
  CHECK(checks::merge_error<DeLoRA>({.rank = 3}) < 1e-5);
  CHECK(checks::trained<DeLoRA>({.rank = 3}, 10, 12) == 3 * (10 + 12) + 1);
  CHECK_THROWS_WITH(checks::trained<DeLoRA>({.rank = 0}), Catch::Contains("rank 0"));
}
