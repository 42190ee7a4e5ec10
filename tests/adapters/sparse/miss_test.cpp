#include "graft/adapters/sparse/miss.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicMiSS;
using graft::MiSS;
using graft::MiSSConfig;

TEST_CASE("MiSS in all its forms begins as the identity, differentiates and merges") {
  for (const auto& config :
       {MiSSConfig{.rank = 3}, MiSSConfig{.rank = 5}, MiSSConfig{.rank = 3, .init_weights = "bat"},
        MiSSConfig{.rank = 3, .mini_rank = 5, .init_weights = "mini"}}) {
    CHECK(checks::change_at_init<BasicMiSS<double>>(config, 15, 12) < 1e-13);
    CHECK(checks::gradient_error<BasicMiSS<double>>(config, 15, 12) < 1e-8);
    CHECK(checks::merge_error<MiSS>(config, 15, 12) < 1e-5);
  }
  CHECK(checks::trained<MiSS>({.rank = 3}, 15, 12) == 3 * 15);
  CHECK(checks::trained<MiSS>({.rank = 3, .mini_rank = 5, .init_weights = "mini"}, 15, 12) == 15);
}

TEST_CASE("MiSS refuses sizes that do not divide") {
  CHECK_THROWS_WITH(checks::trained<MiSS>({.rank = 4, .init_weights = "bat"}, 15, 12),
                    Catch::Contains("does not divide"));
  CHECK_THROWS_WITH(
      checks::trained<MiSS>({.rank = 4, .mini_rank = 4, .init_weights = "mini"}, 15, 12),
      Catch::Contains("mini_r 4"));
}
