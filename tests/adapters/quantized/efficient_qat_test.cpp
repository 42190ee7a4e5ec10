#include "graft/adapters/quantized/efficient_qat.hpp"

#include "adapters/method_checks.hpp"

using graft::EfficientQAT;
using graft::EfficientQATConfig;
using graft::Index;

TEST_CASE("Both phases of EfficientQAT start as the quantised layer and merge") {
  const auto layer = checks::random_layer<float>(10, 12, 1);
  const EfficientQATConfig first{.bits = 3, .group_size = 4};
  EfficientQATConfig second = first;
  second.phase = "e2e_qp";
  const auto a = merge_linear(layer, EfficientQAT(first, layer)).dense_weight();
  const auto b = merge_linear(layer, EfficientQAT(second, layer)).dense_weight();
  CHECK(checks::relative_error(a, b) < 1e-6);
  CHECK(checks::relative_error(a, layer.dense_weight()) < 0.2);
  CHECK(checks::relative_error(a, layer.dense_weight()) > 0.01);
  CHECK(checks::trained<EfficientQAT>(first) == 10 * 12 + 2 * 10 * 3);
  CHECK(checks::trained<EfficientQAT>(second) == 10 * 3);
  CHECK(checks::merge_error<EfficientQAT>(first) < 1e-5);
  CHECK(checks::merge_error<EfficientQAT>(second) < 1e-5);
  // With integers that stay the scales are an ordinary layer's parameters.
  CHECK(checks::gradient_error<graft::BasicEfficientQAT<double>>(second) < 1e-6);
}

TEST_CASE("Training a layer on its float outputs brings the quantised one nearer") {
  const auto layer = checks::random_layer<double>(8, 16, 2);
  const graft::BasicEfficientQAT<double> method({.bits = 2, .group_size = 8}, layer);
  const auto x = checks::random_tensor<double>({64, 16}, 3);
  const auto target = checks::base_output(layer, x);
  double first = 0, least = 1e9;
  for (int step = 0; step < 60; ++step) {
    graft::BasicTape<double> tape;
    const auto loss = graft::mse(method.apply(layer, tape.constant(x)), tape.constant(target));
    if (step == 0) first = loss.item();
    least = std::min(least, loss.item());
    tape.backward(loss);
    for (const auto& t : method.tensors()) {
      const double rate = t.name == "weight" ? 0.1 : 0.02;
      for (Index i = 0; i < t.parameter.size(); ++i)
        t.parameter.value()[i] -= rate * t.parameter.grad()[i];
      t.parameter.zero_grad();
    }
  }
  CHECK(least < 0.9 * first);
}

TEST_CASE("EfficientQAT takes given integers and refuses what does not fit") {
  const auto layer = checks::random_layer<float>(2, 4, 1);
  EfficientQATConfig config{.bits = 3, .group_size = 2, .phase = "e2e_qp"};
  EfficientQAT method(config, layer);
  method.set_codes({0, 1, 2, 3, 4, 5, 6, 7}, {1, 2, 3, 4}, 4);
  const auto scale = method.tensors()[0].parameter.value();
  const auto w = merge_linear(layer, method).dense_weight();
  CHECK(w[0] == Approx(-scale[0]));
  CHECK(w[7] == Approx(3 * scale[3]));
  CHECK_THROWS_WITH(method.set_codes({0, 1}, {1, 2, 3, 4}, 4), Catch::Contains("2 codes"));
  config.phase = "both";
  CHECK_THROWS_WITH(EfficientQAT(config, layer), Catch::Contains("phase 'both'"));
  CHECK_THROWS_WITH(EfficientQAT({.group_size = 3}, layer), Catch::Contains("group_size 3"));
}
