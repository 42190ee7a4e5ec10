#include "graft/adapters/mixtures/mola.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::ConfigValue;
using graft::Index;

TEST_CASE("MoLA begins as the identity, counts, differentiates and does not merge") {
  using M = graft::BasicMoLA<double>;
  const graft::MoLAConfig config{.num_experts = 4, .rank = 3, .alpha = 6};
  CHECK(checks::change_at_init<M>(config) == 0);
  CHECK(checks::trained<graft::MoLA>(config) == 4 * 3 * 22 + 4 * 12);
  CHECK(checks::gradient_error<M>(config) < 1e-6);
  CHECK(checks::auxiliary_gradient_error<M>({.num_experts = 4, .router_aux_loss_coef = 1}) < 1e-6);
  CHECK_THROWS_WITH(checks::merge_error<graft::MoLA>(config), Catch::Contains("token"));
}

TEST_CASE("an expert of MoLA that is alone is a LoRA") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto method = checks::make<graft::BasicMoLA<double>>(
      {.num_experts = 1, .rank = 3, .alpha = 6}, checks::site_of(layer));
  checks::randomize(method);
  const auto x = checks::random_tensor<double>({5, 12}, 2);
  const auto tensors = method.tensors();
  const auto a = tensors[0].parameter.value().reshape({3, 12}),
             b = tensors[1].parameter.value().reshape({10, 3});
  auto expected = checks::base_output(layer, x).clone();
  const auto delta =
      graft::detail::product(graft::detail::product(x, a, 1.0, false, true), b, 2.0, false, true);
  for (Index i = 0; i < expected.size(); ++i) expected[i] += delta[i];
  CHECK(checks::relative_error(checks::output(method, layer, x), expected) < 1e-14);
}

TEST_CASE("MoLA has the experts that its allocation gives a block") {
  CHECK(graft::expert_allocation("inverted_triangle", 8) ==
        std::vector<Index>{2, 2, 4, 4, 6, 6, 8, 8});
  CHECK(graft::expert_allocation("hourglass", 5) == std::vector<Index>{8, 8, 2, 2, 8});
  graft::MoLAConfig config;
  CHECK(config.experts_of(5, 12) == 4);
  CHECK(config.experts_of(-1, 0) == 2);
  config.num_experts = ConfigValue::List{3, 4};
  CHECK(config.experts_of(1, 2) == 4);
  CHECK_THROWS_WITH(config.experts_of(2, 3), Catch::Contains("block 2"));
  config.num_experts = "square";
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("square"));
  config.num_experts = 0;
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("num_experts 0"));
}
