#include "graft/tensor/hadamard.hpp"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

using graft::Index;

TEST_CASE("The Walsh-Hadamard transform has Sylvester's signs and is its own inverse") {
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  for (const Index n : {1, 2, 8, 64, 4096, 16384}) {
    std::vector<double> x(static_cast<std::size_t>(n));
    for (double& v : x) v = normal(generator);
    auto y = x;
    graft::walsh_hadamard(y.data(), n);
    // H[i, j] = −1 where i and j have an odd number of ones in common.
    for (Index i = 0; i < n; i += std::max<Index>(1, n / 7)) {
      double expected = 0;
      for (Index j = 0; j < n; ++j)
        expected += (std::popcount(static_cast<unsigned>(i & j)) % 2 == 0 ? 1 : -1) *
                    x[static_cast<std::size_t>(j)];
      CHECK(y[static_cast<std::size_t>(i)] == Approx(expected).margin(1e-9));
    }
    graft::walsh_hadamard(y.data(), n);
    double error = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      error = std::max(error, std::abs(y[i] / static_cast<double>(n) - x[i]));
    CHECK(error < 1e-12);
  }
  std::vector<double> x(6);
  CHECK_THROWS_AS(graft::walsh_hadamard(x.data(), 6), graft::ShapeError);
}
