#include "graft/tensor/decompositions.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>

using graft::BasicTensor;
using graft::Index;

namespace {

BasicTensor<double> random_matrix(Index rows, Index cols, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  auto t = BasicTensor<double>::empty({rows, cols});
  for (double& v : t) v = normal(generator);
  return t;
}

}  // namespace

TEST_CASE("the singular value decomposition reproduces tall and wide matrices") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{9, 5}, {5, 9}, {6, 6}}) {
    const auto a = random_matrix(rows, cols, 3);
    const auto d = graft::svd(a);
    const Index p = d.s.size();
    for (Index k = 1; k < p; ++k) CHECK(d.s[k - 1] >= d.s[k]);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < cols; ++j) {
        double sum = 0;
        for (Index k = 0; k < p; ++k) sum += d.u(i, k) * d.s[k] * d.v(j, k);
        CHECK(sum == Approx(a(i, j)).margin(1e-12));
      }
  }
}

TEST_CASE("the reduced QR factors multiply to the matrix and Q has orthonormal columns") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{9, 5}, {5, 9}}) {
    const auto a = random_matrix(rows, cols, 4);
    const auto f = graft::qr(a);
    const Index p = f.q.cols();
    REQUIRE(p == std::min(rows, cols));
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < cols; ++j) {
        double sum = 0;
        for (Index k = 0; k < p; ++k) sum += f.q(i, k) * f.r(k, j);
        CHECK(sum == Approx(a(i, j)).margin(1e-12));
      }
    for (Index i = 0; i < p; ++i)
      for (Index j = 0; j < p; ++j) {
        double sum = 0;
        for (Index k = 0; k < rows; ++k) sum += f.q(k, i) * f.q(k, j);
        CHECK(sum == Approx(i == j ? 1 : 0).margin(1e-12));
      }
  }
}

TEST_CASE("the inverse of each matrix of a stack times the matrix is the identity") {
  const auto a = random_matrix(8, 4, 5).reshape({2, 4, 4});
  const auto y = graft::inverse(a);
  for (Index s = 0; s < 2; ++s)
    for (Index i = 0; i < 4; ++i)
      for (Index j = 0; j < 4; ++j) {
        double sum = 0;
        for (Index k = 0; k < 4; ++k) sum += a[s * 16 + i * 4 + k] * y[s * 16 + k * 4 + j];
        CHECK(sum == Approx(i == j ? 1 : 0).margin(1e-9));
      }
  CHECK_THROWS_AS(graft::inverse(random_matrix(2, 3, 1)), graft::ShapeError);
}

TEST_CASE("symmetric_eigen gives ascending values and orthonormal vectors") {
  std::mt19937 generator(4);
  std::normal_distribution<double> normal;
  auto a = graft::BasicTensor<double>::empty({6, 6});
  for (graft::Index i = 0; i < 6; ++i)
    for (graft::Index j = 0; j <= i; ++j) a(i, j) = a(j, i) = normal(generator);
  const auto e = graft::symmetric_eigen(a);
  for (graft::Index k = 0; k < 6; ++k) {
    if (k > 0) CHECK(e.values[k - 1] <= e.values[k]);
    for (graft::Index i = 0; i < 6; ++i) {
      double product = 0;
      for (graft::Index j = 0; j < 6; ++j) product += a(i, j) * e.vectors(j, k);
      CHECK(product == Approx(e.values[k] * e.vectors(i, k)).margin(1e-12));
    }
  }
  CHECK_THROWS_AS(graft::symmetric_eigen(graft::BasicTensor<double>::zeros({2, 3})),
                  graft::ShapeError);
}
