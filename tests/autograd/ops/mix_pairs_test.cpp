#include "graft/autograd/ops/mix_pairs.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::Index;

TEST_CASE("a tree over d columns has d - 1 pairs and joins all of them") {
  for (const Index d : {2, 3, 7, 8, 23, 64}) {
    const auto pairs = graft::tree_pairs(d);
    CHECK(static_cast<Index>(pairs.size()) == d - 1);
    // Every column but the first is the second of one pair, after which it rests.
    std::vector<int> second(static_cast<std::size_t>(d), 0);
    for (const auto& [i, j] : pairs) {
      CHECK(i < j);
      CHECK(second[static_cast<std::size_t>(i)] == 0);
      CHECK(second[static_cast<std::size_t>(j)]++ == 0);
    }
    CHECK(second[0] == 0);
  }
  const graft::ColumnPairs seven{{0, 1}, {2, 3}, {4, 5}, {0, 2}, {4, 6}, {0, 4}};
  CHECK(graft::tree_pairs(7) == seven);
}

TEST_CASE("mixed pairs are the product of their matrices, and so is the gradient") {
  // Rows of more than one group of lanes.
  const Index rows = 37, d = 5;
  const auto pairs = std::make_shared<graft::ColumnPairs>(
      graft::ColumnPairs{{0, 3}, {1, 2}, {3, 4}, {0, 1}, {2, 0}});
  const graft::BasicParameter<double> x(checks::random_tensor<double>({rows, d}, 1)),
      m(checks::random_tensor<double>({5, 2, 2}, 2));
  graft::BasicTape<double> tape;
  const auto y = mix_pairs(tape.parameter(x), tape.parameter(m), pairs).value();
  auto expected = x.value().clone();
  for (Index p = 4; p >= 0; --p) {
    const auto [i, j] = (*pairs)[static_cast<std::size_t>(p)];
    for (Index r = 0; r < rows; ++r) {
      const double u = expected(r, i), v = expected(r, j);
      expected(r, i) = u * m.value()[4 * p] + v * m.value()[4 * p + 2];
      expected(r, j) = u * m.value()[4 * p + 1] + v * m.value()[4 * p + 3];
    }
  }
  CHECK(checks::relative_error(y, expected) < 1e-14);
  const auto weights = checks::random_tensor<double>({rows, d}, 3);
  const auto check = graft::gradient_check(
      [&](graft::BasicTape<double>& t) {
        return sum(mul(mix_pairs(t.parameter(x), t.parameter(m), pairs), t.constant(weights)));
      },
      {x, m});
  CHECK(check.relative_error < 1e-8);
  CHECK_THROWS_AS(
      mix_pairs(tape.constant(x.value()), tape.constant(BasicTensor<double>::zeros({4, 4})), pairs),
      graft::ShapeError);
}
