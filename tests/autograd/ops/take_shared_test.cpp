#include "graft/autograd/ops/take_shared.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("take_shared reads by number and adds the gradients of repeated elements") {
  const graft::BasicParameter<double> x(checks::random_tensor<double>({5}, 1));
  const auto index = std::make_shared<const std::vector<std::int32_t>>(
      std::vector<std::int32_t>{4, 0, 4, 2, 2, 2});
  graft::BasicTape<double> tape;
  const auto y = take_shared(tape.parameter(x), index, {2, 3});
  CHECK(y.value()(1, 0) == x.value()[2]);
  tape.backward(sum(y));
  CHECK(x.grad()[2] == 3);
  CHECK(x.grad()[1] == 0);
  CHECK_THROWS_AS(take_shared(tape.parameter(x), index, {5}), graft::ShapeError);
}
