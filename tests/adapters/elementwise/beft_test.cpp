#include "graft/adapters/elementwise/beft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicBEFT;
using graft::BEFT;

TEST_CASE("BEFT adds a trained bias that begins at zero") {
  CHECK(checks::change_at_init<BasicBEFT<double>>({}) == 0);
  CHECK(checks::gradient_error<BasicBEFT<double>>({}, 7, 13) < 1e-8);
  CHECK(checks::merge_error<BEFT>({}) < 1e-5);
  CHECK(checks::merge_error<BEFT>({}, 10, 12, false) < 1e-5);
  CHECK(checks::trained<BEFT>({}, 10, 12) == 10);
}
