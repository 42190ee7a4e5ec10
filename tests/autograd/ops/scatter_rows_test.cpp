#include "graft/autograd/ops/scatter_rows.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicParameter;
using graft::BasicTape;
using graft::Index;

TEST_CASE("scattered rows add where their positions meet") {
  const BasicParameter<double> x(checks::random_tensor<double>({3, 2, 2}, 1));
  const auto run = [&](BasicTape<double>& tape) {
    return scatter_rows(tape.parameter(x), {4, 1, 4}, 5);
  };
  BasicTape<double> tape;
  const auto y = run(tape).value();
  REQUIRE(y.shape() == graft::Shape{5, 2, 2});
  for (Index i = 0; i < 4; ++i) {
    CHECK(y[16 + i] == x.value()[i] + x.value()[8 + i]);
    CHECK(y[4 + i] == x.value()[4 + i]);
    CHECK(y[i] == 0);
  }
  const auto weights = checks::random_tensor<double>({5, 2, 2}, 2);
  CHECK(
      graft::gradient_check(
          [&](BasicTape<double>& t) { return sum(mul(square(run(t)), t.constant(weights))); }, {x})
          .relative_error < 1e-8);
  CHECK_THROWS_AS(scatter_rows(tape.parameter(x), {0, 1, 5}, 5), graft::ValueError);
  CHECK_THROWS_AS(scatter_rows(tape.parameter(x), {0, 1}, 5), graft::ShapeError);
}
