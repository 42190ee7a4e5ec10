#include "graft/adapters/low_rank/deft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicDEFT;
using graft::DEFT;
using graft::DEFTConfig;

TEST_CASE("DEFT begins as the identity, differentiates and merges") {
  for (const auto& config :
       {DEFTConfig{.rank = 3, .alpha = 5}, DEFTConfig{.rank = 3, .decomposition_method = "qr"}}) {
    CHECK(checks::change_at_init<BasicDEFT<double>>(config) < 1e-13);
    CHECK(checks::gradient_error<BasicDEFT<double>>(config) < 1e-7);
    CHECK(checks::merge_error<DEFT>(config) < 1e-5);
    CHECK(checks::merge_error<DEFT>(config, 10, 12, false) < 1e-5);
    CHECK(checks::trained<DEFT>(config) == 3 * (10 + 12));
  }
  CHECK(checks::change_at_init<BasicDEFT<double>>({.rank = 3, .init_weights = false}) > 1e-4);
}

TEST_CASE("DEFT as PaRa has no R") {
  const DEFTConfig config{.rank = 3, .decomposition_method = "qr", .para = true};
  CHECK(checks::gradient_error<BasicDEFT<double>>(config) < 1e-7);
  CHECK(checks::merge_error<DEFT>(config) < 1e-5);
  CHECK(checks::trained<DEFT>(config) == 3 * 10);
}

TEST_CASE("DEFT lowers the rank to the outputs and refuses unknown decompositions") {
  CHECK(checks::trained<DEFT>({.rank = 40}, 5, 12) == 5 * (5 + 12));
  CHECK_THROWS_WITH(checks::trained<DEFT>({.decomposition_method = "lu"}),
                    Catch::Contains("decomposition_method 'lu'"));
}
