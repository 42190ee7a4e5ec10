#include "graft/adapters/memory/deft_density.hpp"

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::Index;

TEST_CASE("The density penalty lies between 0 and 1, and has the gradient of its formula") {
  const graft::BasicParameter<double> a(checks::random_tensor<double>({2, 4, 5}, 1, 0.1));
  const std::vector<unsigned char> tokens{1, 0, 1, 1, 0, 0, 1, 1};
  for (const bool masked : {false, true}) {
    const auto mask = masked ? tokens : std::vector<unsigned char>();
    graft::BasicTape<double> tape;
    double expected = 0, count = 0;
    for (Index i = 0; i < 40; ++i) {
      if (masked && tokens[static_cast<std::size_t>(i / 5)] == 0) continue;
      const double square = a.value()[i] * a.value()[i];
      expected += square / (square + 1e-3);
      ++count;
    }
    const double found = density_penalty(tape.parameter(a), 1e-3, mask).item();
    CHECK(found == Approx(expected / count));
    CHECK(found > 0);
    CHECK(found < 1);
    CHECK(graft::gradient_check(
              [&](graft::BasicTape<double>& t) {
                return density_penalty(t.parameter(a), 1e-3, mask);
              },
              {a})
              .relative_error < 1e-6);
  }
  graft::BasicTape<double> tape;
  CHECK(density_penalty(tape.constant(BasicTensor<double>::zeros({3, 4})), 1e-7).item() == 0);
  CHECK_THROWS_WITH(density_penalty(tape.parameter(a), 1e-3, {1, 0}),
                    Catch::Contains("2 tokens for 8 rows"));
  const auto half = BasicTensor<double>::from({0, 0.2, -0.3, 0.01}, {2, 2});
  CHECK(graft::activation_density(half, 0.05) == 0.5);
  CHECK(graft::activation_density(half, 0) == 0.75);
  CHECK(graft::activation_density(half, 0, {0, 1}) == 1);
}

TEST_CASE("A watched layer computes what it computed and gives its penalty once") {
  const auto layer = checks::random_layer<double>(3, 4, 1);
  const graft::BasicAnyLinear<double> base(layer);
  graft::DEFTDensityConfig config;
  config.epsilon = 0.01;
  const graft::DensityWatch<double> watch(config, 0.25);
  graft::BasicTape<double> tape;
  const auto x = tape.leaf(checks::random_tensor<double>({5, 4}, 2));
  const auto y = watch.apply(graft::BasicLinearView<double>(base, {}), x);
  CHECK(checks::relative_error(y.value(), checks::base_output(layer, x.value())) == 0);
  const auto loss = watch.auxiliary_loss(tape);
  CHECK(loss.item() == Approx(0.25 * density_penalty(x, 0.01).item()));
  CHECK(watch.last_penalty() == Approx(4 * loss.item()));
  CHECK(watch.last_density() == 1);
  CHECK_FALSE(watch.auxiliary_loss(tape));
  tape.backward(loss);
  CHECK(x.grad());
  const graft::DensityWatch<double> metric(config, 0);
  metric.apply(graft::BasicLinearView<double>(base, {}), x);
  CHECK_FALSE(metric.auxiliary_loss(tape));
  CHECK(metric.last_penalty() == Approx(watch.last_penalty()));
  CHECK(metric.last_density() == watch.last_density());
  config.epsilon = 0;
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("epsilon 0"));
}
