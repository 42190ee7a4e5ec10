#include "graft/adapters/orthogonal/oft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicOFT;
using graft::OFT;
using graft::OFTConfig;

TEST_CASE("OFT begins as the identity, differentiates and merges") {
  for (const auto& config :
       {OFTConfig{.block_size = 4}, OFTConfig{.block_size = 4, .use_cayley_neumann = false},
        OFTConfig{.block_size = 3, .block_share = true},
        OFTConfig{.blocks = 2, .block_size = 0, .num_cayley_neumann_terms = 3}}) {
    CHECK(checks::change_at_init<BasicOFT<double>>(config) < 1e-13);
    CHECK(checks::gradient_error<BasicOFT<double>>(config) < 1e-7);
    CHECK(checks::merge_error<OFT>(config) < 1e-5);
  }
  CHECK(checks::trained<OFT>({.block_size = 4}, 10, 12) == 3 * 6);
  CHECK(checks::trained<OFT>({.block_size = 4, .block_share = true}, 10, 12) == 6);
}

TEST_CASE("OFT refuses both a number and a size of blocks") {
  CHECK_THROWS_WITH(checks::trained<OFT>({.blocks = 2, .block_size = 4}),
                    Catch::Contains("exactly one"));
}
