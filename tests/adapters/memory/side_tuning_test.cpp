#include "graft/adapters/memory/side_tuning.hpp"

#include "adapters/method_checks.hpp"

using graft::Index;
using graft::SideTuning;
using graft::SideTuningConfig;

TEST_CASE(
    "Side tuning blends a frozen layer with a small network and sends no gradient through it") {
  const SideTuningConfig config{.side_hidden = 5};
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const graft::BasicSideTuning<double> method(config, layer);
  checks::randomize(method);
  const auto tensors = method.tensors();
  const auto x = checks::random_tensor<double>({4, 12}, 2);
  // Only S gives x a gradient, so that every gradient is that of y with F as a constant.
  std::vector<graft::BasicParameter<double>> parameters{graft::BasicParameter<double>(x)};
  for (const auto& t : tensors) parameters.push_back(t.parameter);
  const auto frozen = checks::base_output(layer, x);
  const auto weights = checks::random_tensor<double>({4, 10}, 3);
  graft::BasicTape<double> tape;
  const auto y = method.apply(layer, tape.parameter(parameters[0]));
  for (const auto& p : parameters) p.zero_grad();
  tape.backward(y, weights);
  const auto found = parameters[0].grad().clone();
  const auto check = graft::gradient_check(
      [&](graft::BasicTape<double>& t) {
        const auto all = method.apply(layer, t.parameter(parameters[0]));
        const auto a = sigmoid(t.parameter(tensors[4].parameter));
        // The frozen part at the moved x, taken out again.
        const auto moved = linear(layer, t.parameter(parameters[0]).detach());
        const auto fixed = sub(t.constant(frozen), moved);
        return sum(mul(add(all, mul(fixed, a)), t.constant(weights)));
      },
      parameters);
  CHECK(check.relative_error < 1e-6);
  CHECK(checks::relative_error(found, parameters[0].grad()) < 1e-12);

  CHECK(checks::trained<SideTuning>(config) == 5 * (10 + 12 + 1) + 10 + 1);
  tensors[4].parameter.assign(graft::BasicTensor<double>::full({1}, 60));
  CHECK(checks::relative_error(checks::output(method, layer, x), frozen) < 1e-12);
  CHECK_THROWS_WITH(merge_linear(layer, method), Catch::Contains("non-linearity"));
  CHECK_THROWS_WITH(SideTuning({.side_hidden = 0}, checks::random_layer<float>(3, 4, 1)),
                    Catch::Contains("side_hidden 0"));
  CHECK_THROWS_WITH(SideTuning({.non_linearity = "wavy"}, checks::random_layer<float>(3, 4, 1)),
                    Catch::Contains("'wavy'"));
}
