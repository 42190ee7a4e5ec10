#include "graft/adapters/selection/losia.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("the rate of a block of LoSiA rises again after a relocation") {
  graft::LoSiAConfig config;
  config.period = 40;
  config.warmup = 0.1;
  graft::selection::BlockAdam<double> adam;
  double value = 0;
  const double gradient = 1;
  const auto move = [&] {
    const double before = value;
    adam.step(&value, &gradient, 1, 0.5, config);
    return before - value;
  };
  // A constant gradient moves by the rate in every step.
  CHECK(move() == Approx(0.5));
  adam.restart();
  for (const double share : {0.25, 0.5, 0.75, 1.0, 1.0}) CHECK(move() == Approx(0.5 * share));
  config.warmup = 0;
  adam.restart();
  CHECK(move() == Approx(0.5));
  // With a count that goes on the first moments are not corrected any more.
  adam.steps = 100000;
  adam.restart(true);
  CHECK(move() == Approx(0.5 * 0.1 / std::sqrt(0.001)).epsilon(1e-3));
}

TEST_CASE("output layers of LoSiA train all columns of their rows if asked to") {
  const auto layer = checks::random_layer<double>(40, 16, 1);
  auto site = checks::site_of(layer, "lm_head");
  graft::LoSiAConfig config;
  config.output_factor = 0.25;
  const auto shape = [&] {
    return checks::make<graft::BasicLoSiA<double>>(config, site).block().shape();
  };
  CHECK(shape() == graft::Shape{5, 2});
  site.model.output_layers = {"lm_head"};
  CHECK(shape() == graft::Shape{10, 16});
  config.output_factor = 1.5;
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("output_factor"));
}

TEST_CASE("LoSiA goes on in the middle of a warm-up") {
  graft::LoSiAConfig config;
  config.rank_factor = 0.5;
  config.period = 4;
  config.warmup = 1;
  auto layer = checks::random_layer<double>(6, 8, 1);
  auto site = checks::site_of(layer);
  site.replace_weight = [&](graft::BasicTensor<double> w) {
    layer = graft::BasicDenseLinear<double>(std::move(w), layer.bias());
  };
  graft::TorchGenerator generator(3);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  const std::vector<graft::PlacedPart<double>> parts{
      {"proj", graft::LoSiAMethod<double>::linear(config, site, context)}};
  const auto& method = *graft::method_of<graft::BasicLoSiA<double>>(parts[0].part.get());
  auto procedure = graft::LoSiAMethod<double>::procedure(config, parts);
  const auto x = checks::random_tensor<double>({5, 8}, 2);
  const auto step = [&](Index t) {
    const graft::StepInfo info{t, 20, 0.1};
    procedure->before_step(info);
    graft::BasicTape<double> tape;
    tape.backward(sum(square(method.apply(layer, tape.constant(x)))));
    const auto before = method.block().value().clone();
    procedure->after_backward(info);
    return std::abs(method.block().value()[0] - before[0]);
  };
  for (Index t = 1; t <= 5; ++t) step(t);  // step 4 relocates, step 5 runs at a quarter
  const auto state = procedure->state();
  procedure = graft::LoSiAMethod<double>::procedure(config, parts);
  procedure->set_state(state);
  CHECK(procedure->state() == state);
  CHECK(state.at("0.since") == std::vector<double>{1});
  CHECK(step(6) < 0.07);  // half of the rate; a whole one would move by about 0.1
}
