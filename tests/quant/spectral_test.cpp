#include "graft/quant/spectral.hpp"

#include <catch2/catch.hpp>
#include <random>

using graft::BasicTensor;
using graft::Index;
namespace quant = graft::quant;

namespace {

BasicTensor<double> random_matrix(Index rows, Index columns, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  auto m = BasicTensor<double>::empty({rows, columns});
  for (double& v : m) v = normal(random);
  return m;
}
double distance(const BasicTensor<double>& a, const BasicTensor<double>& b) {
  double error = 0;
  for (Index i = 0; i < a.size(); ++i) error += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(error);
}

}  // namespace

TEST_CASE("A matrix is the sum of its first singular vectors and the residual") {
  const auto w = random_matrix(9, 21, 1);
  const auto part = quant::spectral_split(w, 4);
  auto sum = part.residual.clone();
  for (Index k = 0; k < 4; ++k)
    for (Index i = 0; i < 9; ++i)
      for (Index j = 0; j < 21; ++j) sum(i, j) += part.u(i, k) * part.s[k] * part.v(k, j);
  CHECK(distance(sum, w) < 1e-12);
  CHECK(quant::spectral_split(w, 100).s.size() == 9);
  CHECK_THROWS_WITH(quant::spectral_split(w, 0), Catch::Contains("rank 0"));
}

TEST_CASE("FP4 blocks keep what they decoded, block by block of a row") {
  const auto w = random_matrix(5, 19, 2);
  const auto q = quant::fp4_blocks(w, 8);
  CHECK(distance(quant::fp4_blocks(q, 8), q) < 1e-6);
  // Another block changes nothing.
  auto moved = w.clone();
  for (Index j = 8; j < 16; ++j) moved(2, j) *= 10;
  const auto other = quant::fp4_blocks(moved, 8);
  for (Index j = 0; j < 19; ++j)
    if (j < 8 || j >= 16) CHECK(other(2, j) == q(2, j));
  CHECK_THROWS_WITH(quant::fp4_blocks(w, 0), Catch::Contains("blocks of 0"));
}

TEST_CASE("A few large directions do not drown the rest when they are quantised apart") {
  auto w = random_matrix(24, 40, 3);
  const auto a = random_matrix(24, 1, 4), b = random_matrix(1, 40, 5);
  for (Index i = 0; i < 24; ++i)
    for (Index j = 0; j < 40; ++j) w(i, j) = 0.05 * w(i, j) + 30 * a[i] * b[j];
  const auto direct = quant::fp4_blocks(w, 16);
  const auto spectral = quant::spectral_quantise(w, {.rank = 1, .block = 16});
  // What is left once the large direction is taken out of both.
  const auto tail = [&](const BasicTensor<double>& q) {
    const auto exact = quant::spectral_split(w, 1).residual;
    const auto found = quant::spectral_split(q, 1).residual;
    return distance(found, exact) / distance(exact, BasicTensor<double>::zeros(exact.shape()));
  };
  CHECK(tail(spectral) < tail(direct));
  const auto scheduled = quant::spectral_quantise(w, {.rank = 3, .block = 16, .schedule_from = 1});
  CHECK(distance(scheduled, w) >
        distance(quant::spectral_quantise(w, {.rank = 3, .block = 16}), w));
}
