#include "graft/adapters/low_rank/dylora.hpp"

#include <catch2/catch.hpp>
#include <map>

#include "adapters/method_checks.hpp"

TEST_CASE("DyLoRA at a rank is LoRA of its first rows, and moves only what learns") {
  graft::DyLoRAConfig config;
  config.mode = "frozen";
  const auto layer = checks::random_layer<double>(5, 9, 1);
  const auto method = checks::make<graft::BasicDyLoRA<double>>(config, checks::site_of(layer));
  checks::randomize(method);
  method.set_rank(3);
  graft::BasicTape<double> tape;
  tape.backward(sum(method.apply(layer, tape.constant(checks::random_tensor<double>({4, 9}, 2)))));
  const auto before = method.a().value().clone();
  graft::RowAdamW<double> adam;
  adam.step(method.a().value(), method.a().grad(), true, config.first_learning(3), 3, 0.1, 0.1);
  for (graft::Index k = 0; k < 8; ++k) {
    const bool same = method.a().value()(k, 0) == before(k, 0);
    CHECK(same == (k != 2));
  }
  CHECK(checks::merge_error<graft::DyLoRA>({}) < 1e-5);
  for (graft::Index step = 1; step < 50; ++step) {
    CHECK(config.draw(step) >= 1);
    CHECK(config.draw(step) <= 8);
  }
  CHECK_THROWS_AS(method.set_rank(9), graft::ValueError);
}

TEST_CASE("DyLoRA draws small ranks more often with a geometric distribution") {
  graft::DyLoRAConfig config;
  config.r_min = 2;
  config.rank = 5;
  config.distribution = "geometric";
  config.geometric_p = 0.4;
  std::map<graft::Index, double> counts;
  for (graft::Index step = 1; step <= 20000; ++step) counts[config.draw(step)] += 1.0 / 20000;
  REQUIRE(counts.size() == 4);
  const double whole = 1 + 0.6 + 0.36 + 0.216;
  for (graft::Index j = 0; j < 4; ++j)
    CHECK(counts.at(2 + j) == Approx(std::pow(0.6, j) / whole).epsilon(0.05));
  config.distribution = "poisson";
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("uniform or geometric"));
}

TEST_CASE("DyLoRA draws a rank for all layers, or one for each") {
  const auto layer = checks::random_layer<double>(5, 9, 1);
  for (const bool per_layer : {false, true}) {
    graft::DyLoRAConfig config;
    config.per_layer = per_layer;
    const auto parts = checks::placed<graft::DyLoRAMethod<double>>(config, layer, {"a", "b"});
    const auto methods = graft::methods_of<graft::BasicDyLoRA<double>>(parts);
    const auto procedure = graft::DyLoRAMethod<double>::procedure(config, parts);
    graft::Index differ = 0;
    for (graft::Index step = 1; step <= 40; ++step) {
      const graft::StepInfo info{step, 40, 0.1};
      procedure->before_step(info);
      differ += methods[0]->rank() != methods[1]->rank();
      procedure->after_backward(info);
      CHECK(methods[1]->rank() == 8);
    }
    CHECK((differ > 20) == per_layer);
    CHECK((differ == 0) != per_layer);
  }
}
