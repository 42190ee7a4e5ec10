#include "graft/autograd/ops/frozen_matmul.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("frozen_matmul reads the upper left of a matrix and differentiates in x") {
  const auto m = checks::random_tensor<double>({6, 9}, 1);
  for (const bool t : {false, true}) {
    const auto how = t ? graft::Transpose::yes : graft::Transpose::no;
    const graft::BasicParameter<double> x(
        checks::random_tensor<double>({2, 3, t ? graft::Index{7} : graft::Index{5}}, 2));
    graft::BasicTape<double> quiet({.gradients = false});
    const auto y = frozen_matmul(quiet.parameter(x), m, 5, 7, how).value();
    double want = 0;
    for (graft::Index k = 0; k < x.value().cols(); ++k)
      want += x.value()[k] * (t ? m(4, k) : m(k, 4));
    CHECK(y[4] == Approx(want));
    const auto weights = checks::random_tensor<double>(y.shape(), 3);
    CHECK(graft::gradient_check(
              [&](graft::BasicTape<double>& tape) {
                return sum(
                    mul(frozen_matmul(tape.parameter(x), m, 5, 7, how), tape.constant(weights)));
              },
              {x})
              .relative_error < 1e-8);
    CHECK_THROWS_AS(frozen_matmul(quiet.parameter(x), m, 5, 10, how), graft::ShapeError);
  }
}
