#include "graft/autograd/ops/block_matmul.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("block_matmul multiplies block by block and differentiates") {
  for (const bool t : {false, true}) {
    const auto how = t ? graft::Transpose::yes : graft::Transpose::no;
    const graft::BasicParameter<double> x(checks::random_tensor<double>({2, 3, 3 * 4}, 1)),
        w(checks::random_tensor<double>(t ? graft::Shape{3, 5, 4} : graft::Shape{3, 4, 5}, 2));
    graft::BasicTape<double> quiet({.gradients = false});
    const auto y = block_matmul(quiet.parameter(x), quiet.parameter(w), how).value();
    double want = 0;
    for (graft::Index k = 0; k < 4; ++k)
      want += x.value()[1 * 12 + 2 * 4 + k] * w.value()[2 * 20 + (t ? 3 * 4 + k : k * 5 + 3)];
    CHECK(y[1 * 15 + 2 * 5 + 3] == Approx(want));
    const auto weights = checks::random_tensor<double>(y.shape(), 3);
    CHECK(graft::gradient_check(
              [&](graft::BasicTape<double>& tape) {
                return sum(mul(block_matmul(tape.parameter(x), tape.parameter(w), how),
                               tape.constant(weights)));
              },
              {x, w})
              .relative_error < 1e-7);
    CHECK_THROWS_AS(block_matmul(quiet.parameter(w), quiet.parameter(w), how), graft::ShapeError);
  }
}
