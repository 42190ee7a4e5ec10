#include "graft/autograd/ops/topk_mixture.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("largest gives the places of the largest numbers, equal ones in order") {
  const double v[] = {1, 4, 4, -2, 7, 4};
  CHECK(graft::largest(v, 6, 3) == std::vector<std::int32_t>{4, 1, 2});
}

TEST_CASE("topk_mixture differentiates in logits and bank") {
  const graft::BasicParameter<double> logits(checks::random_tensor<double>({3, 2, 6}, 1)),
      bank(checks::random_tensor<double>({6, 4}, 2));
  const auto weights = checks::random_tensor<double>({3, 2, 4}, 3);
  for (const graft::Index k : {1, 3, 6})
    CHECK(graft::gradient_check(
              [&](graft::BasicTape<double>& tape) {
                return sum(mul(topk_mixture(tape.parameter(logits), tape.parameter(bank), k),
                               tape.constant(weights)));
              },
              {logits, bank})
              .relative_error < 1e-7);
  graft::BasicTape<double> tape;
  CHECK_THROWS_AS(topk_mixture(tape.parameter(logits), tape.parameter(bank), 7), graft::ValueError);
  CHECK_THROWS_AS(topk_mixture(tape.parameter(bank), tape.parameter(bank), 1), graft::ShapeError);
}
