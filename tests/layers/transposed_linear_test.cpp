#include "graft/layers/transposed_linear.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("transposed_linear multiplies by W and differentiates") {
  const auto layer = checks::random_layer<double>(5, 7, 1);
  const graft::BasicParameter<double> x(checks::random_tensor<double>({3, 5}, 2));
  const auto weights = checks::random_tensor<double>({3, 7}, 3);
  graft::BasicTape<double> quiet({.gradients = false});
  CHECK(checks::relative_error(
            transposed_linear(layer, quiet.parameter(x)).value(),
            matmul(quiet.parameter(x), quiet.constant(layer.dense_weight())).value()) < 1e-14);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              return sum(mul(transposed_linear(layer, tape.parameter(x)), tape.constant(weights)));
            },
            {x})
            .relative_error < 1e-8);
  CHECK_THROWS_AS(transposed_linear(layer, quiet.constant(weights)), graft::ShapeError);
}
