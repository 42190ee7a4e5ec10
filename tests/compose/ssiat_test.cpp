#include "graft/compose/ssiat.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using checks::random_tensor;
using graft::Index;
using Wide = graft::BasicTensor<double>;

TEST_CASE("SSIAT: a constant shift moves every mean by it; a wide kernel gives the mean shift") {
  const auto f = random_tensor<double>({11, 3}, 1), means = random_tensor<double>({4, 3}, 2);
  const auto same =
      graft::shift_means(means, graft::shift_weights(f, means), Wide::full({11, 3}, 2));
  for (Index i = 0; i < means.size(); ++i) CHECK(same[i] == Approx(means[i] + 2));
  const auto shift = random_tensor<double>({11, 3}, 3);
  const auto wide =
      graft::shift_means(means, graft::shift_weights(f, means, {.sigma = 1e6}), shift);
  for (Index j = 0; j < 3; ++j) {
    double mean = 0;
    for (Index i = 0; i < 11; ++i) mean += shift(i, j) / 11;
    CHECK(wide(2, j) == Approx(means(2, j) + mean));
  }
  CHECK_THROWS_AS(graft::shift_weights(f, means, {.sigma = 0}), graft::ValueError);
  CHECK_THROWS_AS(graft::shift_means(means, means, shift), graft::ShapeError);
}

TEST_CASE("SSIAT: distances of unit vectors do not see lengths") {
  const auto f = Wide::from({2, 0, 0, 3}, {2, 2}), means = Wide::from({5, 0}, {1, 2});
  const auto w = graft::shift_weights(f, means, {.sigma = 1, .normalise_distance = true});
  CHECK(w[0] == Approx(1 + 1e-5));
  CHECK(w[1] == Approx(std::exp(-1.0) + 1e-5));
  CHECK(graft::shift_weights(f, means, {.sigma = 1})[0] == Approx(std::exp(-4.5) + 1e-5));
  CHECK(graft::sampling_scale(1, 4) == Approx(0.94));
}

TEST_CASE("SSIAT: cosine logits, and the margin of the label") {
  graft::BasicTape<double> tape;
  const auto f = tape.constant(Wide::from({3, 4}, {1, 2})),
             w = tape.constant(Wide::from({2, 0, 0, 0.1}, {2, 2}));
  const auto y = graft::cosine_logits(f, w).value();
  CHECK(y[0] == Approx(12));
  CHECK(y[1] == Approx(16));
  const std::vector<std::int64_t> labels{1};
  CHECK(graft::cosine_logits(f, w, 10, 0.2, labels).value()[1] == Approx(6));
}
