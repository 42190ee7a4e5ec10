#include "graft/adapters/mixtures/molora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("MoLoRA mixes all experts or the likeliest ones") {
  using M = graft::BasicMoLoRA<double>;
  const graft::MoLoRAConfig config{.num_experts = 4, .rank = 3};
  CHECK(checks::change_at_init<M>(config) == 0);
  CHECK(checks::trained<graft::MoLoRA>(config) == 4 * (3 * 22 + 12 + 1));
  CHECK(checks::gradient_error<M>(config) < 1e-6);
  CHECK(checks::gradient_error<M>({.num_experts = 4, .top_k = 2, .rank = 3}) < 1e-6);
  CHECK_THROWS_WITH(checks::merge_error<graft::MoLoRA>(config), Catch::Contains("token"));
  CHECK_THROWS_WITH(graft::MoLoRAConfig{.top_k = 0}.validate(), Catch::Contains("top_k 0"));
}
