#include "graft/train/metrics.hpp"

#include <catch2/catch.hpp>

using graft::ConfusionMatrix;

TEST_CASE("A confusion matrix gives accuracy, precision, recall and F1") {
  // true 0: 3 right, 1 taken for 1; true 1: 2 right, 2 taken for 0, 1 for 2; class 2 never occurs.
  ConfusionMatrix m(4);
  for (int i = 0; i < 3; ++i) m.add(0, 0);
  m.add(0, 1);
  for (int i = 0; i < 2; ++i) m.add(1, 1);
  for (int i = 0; i < 2; ++i) m.add(1, 0);
  m.add(1, 2);
  CHECK(m.total() == 9);
  CHECK(m.of_class(1) == 5);
  CHECK(m.predicted_as(0) == 5);
  CHECK(m.accuracy() == Approx(5.0 / 9));
  CHECK(m.precision(0) == Approx(3.0 / 5));
  CHECK(m.recall(0) == Approx(3.0 / 4));
  CHECK(m.f1(0) == Approx(2.0 / 3));
  CHECK(m.f1(1) == Approx(0.5));
  CHECK(m.precision(3) == 0);
  CHECK(m.f1(2) == 0);
  // Class 3 is nowhere and does not count; class 2 was predicted and does.
  CHECK(m.macro_f1() == Approx((2.0 / 3 + 0.5 + 0) / 3));
  CHECK_THROWS_AS(m.add(4, 0), graft::ValueError);
  CHECK_THROWS_AS(m.add(0, -1), graft::ValueError);
}

TEST_CASE("An empty confusion matrix has zeros") {
  const ConfusionMatrix m(2);
  CHECK(m.accuracy() == 0);
  CHECK(m.macro_f1() == 0);
}

TEST_CASE("A regression score has errors and the correlation") {
  const std::vector<float> truth{1, 2, 3, 4}, predicted{1, 3, 2, 6};
  const auto score = graft::regression_score(truth, predicted);
  CHECK(score.count == 4);
  CHECK(score.mean_squared_error == Approx(6.0 / 4));
  CHECK(score.mean_absolute_error == Approx(1));
  CHECK(score.pearson == Approx(7 / std::sqrt(5.0 * 14)));
  const std::vector<float> same{2, 2, 2, 2};
  CHECK(graft::regression_score(truth, same).pearson == 0);
  CHECK(graft::regression_score({}, {}).count == 0);
  CHECK_THROWS_AS(graft::regression_score(truth, std::vector<float>{1}), graft::ValueError);
}
