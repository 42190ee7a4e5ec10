#include "graft/adapters/prompts/blackvip.hpp"

#include "adapters/method_checks.hpp"

using graft::Index;

namespace {

graft::BlackvipConfig small() {
  graft::BlackvipConfig c;
  c.feature_dim = 5;
  c.trigger_dim = 7;
  c.seed_side = 2;
  c.channels = {{6, 4}};
  return c;
}

}  // namespace

TEST_CASE("BlackVIP's coordinator: size, count, gradients") {
  graft::StandaloneInit<float> init(1);
  const graft::BlackvipCoordinator whole({}, init.context());
  CHECK(graft::trainable_elements(whole.tensors()) == 9920);
  CHECK(whole.side() == 224);

  graft::StandaloneInit<double> other(1);
  const graft::BasicBlackvipCoordinator<double> module(small(), other.context());
  checks::randomize(module, 0.4);
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(checks::random_tensor<double>({2, 3, 8, 8}, 3)),
      graft::BasicParameter<double>(checks::random_tensor<double>({2, 5}, 4))};
  for (const auto& t : module.tensors())
    if (t.parameter.trainable()) parameters.push_back(t.parameter);
  const auto weights = checks::random_tensor<double>({2, 3, 8, 8}, 5);
  const auto check = graft::gradient_check(
      [&](graft::BasicTape<double>& tape) {
        return sum(mul(module.apply(tape.parameter(parameters[0]), tape.parameter(parameters[1])),
                       tape.constant(weights)));
      },
      parameters);
  CHECK(check.relative_error < 1e-7);
}

TEST_CASE("BlackVIP's images stay in the range of pixels") {
  auto config = small();
  config.pixel_range = {-0.5, 0.5};
  graft::StandaloneInit<float> init(1);
  const graft::BlackvipCoordinator module(config, init.context());
  graft::Tape tape({.gradients = false});
  const auto y = module.apply(tape.constant(checks::random_tensor<float>({1, 3, 8, 8}, 3)),
                              tape.constant(checks::random_tensor<float>({1, 5}, 4)));
  for (const float v : y.value()) CHECK(std::abs(v) <= 0.5F);
  config.seed_side = 5;
  CHECK_THROWS_WITH(graft::BlackvipCoordinator(config, init.context()),
                    Catch::Contains("no image of side 5"));
  config = small();
  config.channels = {{7, 4}};
  CHECK_THROWS_AS(graft::BlackvipCoordinator(config, init.context()), graft::ValueError);
}
