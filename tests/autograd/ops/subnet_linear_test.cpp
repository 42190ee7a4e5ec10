#include "graft/autograd/ops/subnet_linear.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/autograd/ops/observe_linear.hpp"
#include "graft/autograd/ops/straight_through.hpp"

using graft::BasicParameter;
using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

TEST_CASE("a block of a matrix acts as the matrix that is zero elsewhere") {
  const auto places = std::make_shared<graft::SubnetPlaces>();
  places->rows = {0, 4};
  places->columns = {1, 2, 5};
  const BasicParameter<double> x(checks::random_tensor<double>({2, 3, 6}, 1)),
      block(checks::random_tensor<double>({2, 3}, 2));
  const auto weights = checks::random_tensor<double>({2, 3, 5}, 3);
  const auto run = [&](BasicTape<double>& tape) {
    return subnet_linear(tape.parameter(x), tape.parameter(block), places, 5);
  };
  CHECK(graft::gradient_check(
            [&](BasicTape<double>& tape) { return sum(mul(run(tape), tape.constant(weights))); },
            {x, block})
            .relative_error < 1e-8);
  auto w = BasicTensor<double>::zeros({5, 6});
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 3; ++j)
      w(places->rows[static_cast<std::size_t>(i)], places->columns[static_cast<std::size_t>(j)]) =
          block.value()(i, j);
  BasicTape<double> tape({.gradients = false});
  const auto expected = matmul(tape.constant(x.value()), tape.constant(w), graft::Transpose::no,
                               graft::Transpose::yes);
  CHECK(checks::relative_error(run(tape).value(), expected.value()) < 1e-12);
}

TEST_CASE("an observer sees what the gradient of a weight is made of") {
  const BasicParameter<double> x(checks::random_tensor<double>({4, 3}, 1));
  BasicTape<double> tape;
  const auto in = tape.parameter(x);
  const auto y = scale(in, 2);
  int calls = 0;
  const auto z = graft::observe_linear<double>(y, in, [&](const auto& seen, const auto& dy) {
    ++calls;
    CHECK(seen[5] == x.value()[5]);
    CHECK(dy[0] == 1);
  });
  tape.backward(sum(z));
  CHECK(calls == 1);
  CHECK(x.grad()[0] == 2);
}

TEST_CASE("masks pass gradients straight through") {
  const BasicParameter<double> s(BasicTensor<double>::from({1, -2, 3, -2}, {4}));
  BasicTape<double> tape;
  const auto above = straight_through_above(tape.parameter(s), 0);
  CHECK(above.value()[0] == 1);
  CHECK(above.value()[1] == 0);
  const auto kept = straight_through_without_smallest(tape.parameter(s), 1);
  CHECK(kept.value()[1] == 0);
  CHECK(kept.value()[3] == 1);
  tape.backward(sum(add(above, kept)));
  for (Index i = 0; i < 4; ++i) CHECK(s.grad()[i] == 2);
}
