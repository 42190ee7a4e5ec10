#include "graft/autograd/ops/rescale_columns.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("rescale_columns scales every column about its offset and differentiates") {
  for (const double smallest : {0.5, 1e-3}) {  // z is kept in place of y for small factors
    const auto z = graft::BasicParameter<double>(checks::random_tensor<double>({37, 5}, 1));
    auto factors = checks::random_tensor<double>({5}, 2);
    for (auto& v : factors) v = 1 + 0.1 * v;
    factors[3] = smallest;
    const graft::BasicParameter<double> g(factors);
    const auto b = checks::random_tensor<double>({5}, 3);
    graft::BasicTape<double> quiet({.gradients = false});
    const auto y = rescale_columns(quiet.parameter(z), quiet.parameter(g), b).value();
    CHECK(y(7, 3) == Approx(smallest * (z.value()(7, 3) - b[3]) + b[3]));
    const auto weights = checks::random_tensor<double>({37, 5}, 4);
    CHECK(graft::gradient_check(
              [&](graft::BasicTape<double>& tape) {
                return sum(mul(rescale_columns(tape.parameter(z), tape.parameter(g), b),
                               tape.constant(weights)));
              },
              {z, g})
              .relative_error < 1e-8);
    CHECK_THROWS_AS(rescale_columns(quiet.parameter(z), quiet.parameter(z), b), graft::ShapeError);
  }
}
