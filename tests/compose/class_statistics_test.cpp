#include "graft/compose/class_statistics.hpp"

#include <catch2/catch.hpp>

using graft::Index;
using Wide = graft::BasicTensor<double>;

TEST_CASE("Cross-entropy over some classes: the others get no gradient") {
  graft::BasicTape<double> tape;
  const auto x = tape.leaf(Wide::from({9, 1, 2, -3, -9, 0, 4, 8}, {2, 4}));
  const std::vector<std::int64_t> labels{1, -100};
  const auto loss = graft::cross_entropy_of_classes(x, labels, 1, 3);
  CHECK(loss.item() == Approx(std::log(1 + std::exp(1.0))));
  tape.backward(loss);
  CHECK(x.grad()[0] == 0);
  CHECK(x.grad()[3] == 0);
  CHECK(x.grad()[2] == Approx(1 / (1 + std::exp(-1.0))));
  CHECK(x.grad()[5] == 0);
  const std::vector<std::int64_t> other{3, 1};
  CHECK_THROWS_AS(graft::cross_entropy_of_classes(x, other, 1, 3), graft::ValueError);
}

TEST_CASE("Probabilities of the first classes; the first of equal ones is best") {
  const auto logits = Wide::from({1, 1, 900, 2, 2, -5}, {2, 3});
  const auto p = graft::class_probabilities(logits, 2);
  CHECK(p.shape() == graft::Shape{2, 2});
  CHECK(p(0, 0) == 0.5);
  CHECK(graft::class_probabilities(logits)(0, 2) == 1);
  CHECK(graft::best_classes(p) == std::vector<Index>{0, 0});
  CHECK(graft::best_classes(logits) == std::vector<Index>{2, 0});
  CHECK_THROWS_AS(graft::class_probabilities(logits, 4), graft::ShapeError);
}

TEST_CASE("A head grows, and its old rows can be frozen") {
  graft::TorchGenerator generator(1);
  const auto old = Wide::from({1, 2, 3, 4}, {2, 2});
  const auto grown = graft::grown_head(old, 5, generator);
  CHECK(grown.shape() == graft::Shape{5, 2});
  CHECK(std::equal(old.begin(), old.end(), grown.begin()));
  CHECK(std::abs(grown(4, 1)) > 0);
  CHECK(std::abs(grown(4, 1)) < 0.71);
  CHECK(graft::grown_head(Wide::ones({2}), 3, generator)[2] == 0);
  CHECK_THROWS_AS(graft::grown_head(old, 1, generator), graft::ShapeError);
  const graft::BasicParameter<double> head(grown);
  graft::freeze_rows(head, 2);
  head.mutable_grad() = Wide::ones({5, 2});
  graft::freeze_rows(head, 2);
  CHECK(head.grad()(1, 1) == 0);
  CHECK(head.grad()(2, 0) == 1);
}

TEST_CASE("Samples of a class have its mean, scaled, and its covariance") {
  graft::TorchGenerator generator(2);
  auto features = Wide::empty({400, 3});
  generator.normal(features.data(), features.size(), 0, 1);
  for (Index i = 0; i < 400; ++i) {
    features(i, 1) = 2 * features(i, 0) + 0.1 * features(i, 1) + 3;
    features(i, 2) += 1;
  }
  const auto known = graft::class_statistics(features, 4);
  CHECK(known.task == 4);
  const auto again =
      graft::class_statistics(graft::sample_class(known, 20000, 0.5, generator), 0, 0);
  for (Index j = 0; j < 3; ++j) {
    CHECK(again.mean[j] == Approx(known.mean[j] / 2).margin(0.05));
    for (Index k = 0; k < 3; ++k)
      CHECK(again.covariance(j, k) == Approx(known.covariance(j, k)).margin(0.15));
  }
  CHECK(graft::class_statistics(Wide::ones({1, 2}), 0).covariance(0, 0) == Approx(1e-4));
}
