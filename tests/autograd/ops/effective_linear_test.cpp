#include "graft/autograd/ops/effective_linear.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("effective_linear differentiates in x and in what the weight is made of") {
  const graft::BasicParameter<double> x(checks::random_tensor<double>({2, 3, 5}, 1)),
      u(checks::random_tensor<double>({4, 2}, 2)), v(checks::random_tensor<double>({2, 5}, 3));
  const auto bias = checks::random_tensor<double>({4}, 4);
  const auto weights = checks::random_tensor<double>({2, 3, 4}, 5);
  const auto build = [u, v](graft::BasicTape<double>& tape) {
    return tanh(matmul(tape.parameter(u), tape.parameter(v)));
  };
  const auto run = [&](graft::BasicTape<double>& tape) {
    return effective_linear(tape.parameter(x), bias, build);
  };
  graft::BasicTape<double> quiet({.gradients = false});
  CHECK(checks::relative_error(run(quiet).value(),
                               affine(quiet.parameter(x), build(quiet), bias).value()) < 1e-14);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              return sum(mul(run(tape), tape.constant(weights)));
            },
            {x, u, v})
            .relative_error < 1e-7);
  CHECK_THROWS_AS(
      effective_linear(quiet.parameter(v), checks::random_tensor<double>({3}, 1), build),
      graft::ShapeError);
}
