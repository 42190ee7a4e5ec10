#include "graft/adapters/low_rank/peanut.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicPEANuT;
using graft::PEANuT;

TEST_CASE("PEANuT begins as the identity, differentiates and merges") {
  for (const graft::Index depth : {0, 2}) {
    const graft::PEANuTConfig config{.rank = 3, .depth = depth, .act_fn = "tanh", .scaling = 0.7};
    CHECK(checks::change_at_init<BasicPEANuT<double>>(config) < 1e-13);
    CHECK(checks::gradient_error<BasicPEANuT<double>>(config, 7, 13) < 1e-6);
    CHECK(checks::merge_error<PEANuT>(config) < 1e-5);
    CHECK(checks::trained<PEANuT>(config, 10, 12) == 2 * 3 * 10 + 2 * depth * 3 * 3);
  }
  CHECK_THROWS_WITH(checks::trained<PEANuT>({.act_fn = "step"}), Catch::Contains("'step'"));
}

TEST_CASE("Every activation that PEANuT knows differentiates") {
  for (const char* name :
       {"relu", "gelu", "gelu_new", "gelu_10", "silu", "sigmoid", "tanh", "quick_gelu", "linear",
        "leaky_relu", "relu2", "relu6", "mish", "hardswish"}) {
    INFO(name);
    CHECK(checks::gradient_error<BasicPEANuT<double>>({.rank = 2, .act_fn = name}, 5, 6) < 1e-5);
  }
}
