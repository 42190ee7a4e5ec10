#include "graft/autograd/ops/edit_rows.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/autograd/ops/householder_rows.hpp"

using graft::BasicParameter;
using graft::BasicTape;
using graft::Index;

TEST_CASE("replaced rows are the new ones, the others keep their bits and gradients") {
  const BasicParameter<double> x(checks::random_tensor<double>({5, 2, 3}, 1)),
      rows(checks::random_tensor<double>({2, 2, 3}, 2));
  const auto weights = checks::random_tensor<double>({5, 2, 3}, 3);
  const auto run = [&](BasicTape<double>& tape) {
    return replace_rows(tape.parameter(x), {3, 0}, tape.parameter(rows));
  };
  BasicTape<double> tape;
  const auto y = run(tape).value();
  for (Index i = 0; i < 6; ++i) {
    CHECK(y[18 + i] == rows.value()[i]);
    CHECK(y[i] == rows.value()[6 + i]);
    CHECK(y[6 + i] == x.value()[6 + i]);
  }
  CHECK(graft::gradient_check(
            [&](BasicTape<double>& t) { return sum(mul(square(run(t)), t.constant(weights))); },
            {x, rows})
            .relative_error < 1e-8);
  CHECK_THROWS_AS(replace_rows(tape.parameter(x), {3, 3}, tape.parameter(rows)), graft::ValueError);
  CHECK_THROWS_AS(replace_rows(tape.parameter(x), {3, 5}, tape.parameter(rows)), graft::ValueError);
  CHECK_THROWS_AS(replace_rows(tape.parameter(x), {3}, tape.parameter(rows)), graft::ShapeError);
}

TEST_CASE("rows from Householder vectors are orthonormal and differentiate") {
  const BasicParameter<double> v(checks::random_tensor<double>({4, 7}, 1));
  const auto weights = checks::random_tensor<double>({4, 7}, 2);
  const auto run = [&](BasicTape<double>& tape) { return householder_rows(tape.parameter(v)); };
  BasicTape<double> tape;
  const auto rows = run(tape).value();
  for (Index i = 0; i < 4; ++i)
    for (Index k = 0; k < 4; ++k) {
      double dot = 0;
      for (Index j = 0; j < 7; ++j) dot += rows(i, j) * rows(k, j);
      CHECK(dot == Approx(i == k ? 1 : 0).margin(1e-14));
    }
  CHECK(
      graft::gradient_check(
          [&](BasicTape<double>& t) { return sum(mul(square(run(t)), t.constant(weights))); }, {v})
          .relative_error < 1e-8);
  // The length of a vector does not matter.
  for (Index j = 0; j < 7; ++j) CHECK(std::isfinite(v.grad()[j]));
  double along = 0;
  for (Index j = 0; j < 7; ++j) along += v.grad()[j] * v.value()[j];
  CHECK(along == Approx(0).margin(1e-12));
  CHECK_THROWS_AS(householder_rows(tape.constant(graft::BasicTensor<double>::zeros({2, 3}))),
                  graft::ValueError);
  CHECK_THROWS_AS(householder_rows(tape.constant(checks::random_tensor<double>({4, 3}, 1))),
                  graft::ShapeError);
}
