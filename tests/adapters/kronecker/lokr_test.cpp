#include "graft/adapters/kronecker/lokr.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicLoKr;
using graft::kronecker_sizes;
using graft::LoKr;
using graft::LoKrConfig;

TEST_CASE("sizes of Kronecker factors are as square as divisors and the factor allow") {
  using Pair = std::pair<graft::Index, graft::Index>;
  CHECK(kronecker_sizes(768, -1) == Pair(24, 32));
  CHECK(kronecker_sizes(768, 16) == Pair(16, 48));
  CHECK(kronecker_sizes(4096, 8) == Pair(8, 512));
  CHECK(kronecker_sizes(1000, 16) == Pair(10, 100));
  CHECK(kronecker_sizes(127, -1) == Pair(1, 127));
}

TEST_CASE("LoKr begins as the identity, differentiates and merges in every shape") {
  for (const auto& config :
       {LoKrConfig{.rank = 1, .alpha = 2}, LoKrConfig{.rank = 1, .decompose_both = true},
        LoKrConfig{.rank = 9, .alpha = 4}, LoKrConfig{.rank = 2, .decompose_factor = 2}}) {
    CHECK(checks::change_at_init<BasicLoKr<double>>(config, 30, 24) < 1e-13);
    CHECK(checks::gradient_error<BasicLoKr<double>>(config, 30, 24) < 1e-8);
    CHECK(checks::merge_error<LoKr>(config, 30, 24) < 1e-5);
  }
  // 30 = 5 · 6 and 24 = 4 · 6: w1 [5, 4], w2 of rank one.
  CHECK(checks::trained<LoKr>({.rank = 1}, 30, 24) == 5 * 4 + (6 + 6));
}

TEST_CASE("LoKr refuses unknown inits") {
  CHECK_THROWS_WITH(checks::trained<LoKr>({.init_weights = "olora"}), Catch::Contains("lycoris"));
}
