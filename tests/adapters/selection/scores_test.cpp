#include "graft/adapters/selection/scores.hpp"

#include <catch2/catch.hpp>

using graft::Index;
using graft::Tensor;
using graft::selection::Places;

TEST_CASE("the best places are in order of their scores, of equal ones the first") {
  const auto scores = Tensor::from({1, 3, 2, 3, 0, 2}, {2, 3});
  CHECK(graft::selection::best(scores, 3) == Places{1, 3, 2});
  CHECK(graft::selection::best_sorted(scores, 3) == Places{1, 2, 3});
  CHECK(graft::selection::best(scores, 9).size() == 6);
  CHECK(graft::selection::best_of_rows(scores, 2) == Places{1, 2, 0, 2});
}

TEST_CASE("a share of all matrices together may leave one empty") {
  const std::vector<Tensor> scores{Tensor::from({5, 4, 1, 2}, {2, 2}),
                                   Tensor::from({0, 0, 0, 0}, {2, 2})};
  const auto together = graft::selection::select(scores, 0.25, true);
  CHECK(together[0] == Places{0, 1});
  CHECK(together[1].empty());
  const auto each = graft::selection::select(scores, 0.25, false);
  CHECK(each[0] == Places{0});
  CHECK(each[1] == Places{0});
}

TEST_CASE("squares of single examples are at least the square of their mean") {
  graft::selection::GradientSum<double> squares(2, 3, true), sum(2, 3, false);
  auto x = graft::BasicTensor<double>::empty({6, 3}),
       dy = graft::BasicTensor<double>::empty({6, 2});
  for (Index i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<double>(i));
  for (Index i = 0; i < dy.size(); ++i) dy[i] = std::cos(static_cast<double>(3 * i));
  squares.see(x, dy, 3);
  sum.see(x, dy, 3);
  for (Index i = 0; i < 6; ++i)
    CHECK(squares.sum()[i] / 3 >= sum.sum()[i] * sum.sum()[i] / 9 - 1e-12);
}
