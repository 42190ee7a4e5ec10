#include "graft/adapters/randomized_svd.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("randomized_svd gives the leading part of a matrix whose spectrum falls") {
  for (const bool wide : {false, true}) {
    const Index m = wide ? 20 : 31, n = wide ? 31 : 20;
    const auto u = graft::qr(checks::random_tensor<double>({m, 20}, 1)).q,
               v = graft::qr(checks::random_tensor<double>({n, 20}, 2)).q;
    auto a = graft::BasicTensor<double>::zeros({m, n});
    for (Index k = 0; k < 20; ++k)
      for (Index i = 0; i < m; ++i)
        for (Index j = 0; j < n; ++j) a(i, j) += std::pow(0.3, k) * u(i, k) * v(j, k);
    graft::TorchGenerator generator(1);
    const auto d = graft::randomized_svd(a, 5, 4, generator);
    for (Index k = 0; k < 5; ++k) CHECK(d.s[k] == Approx(std::pow(0.3, k)));
    for (Index i = 0; i < m; ++i)
      for (Index j = 0; j < n; ++j) {
        double sum = 0;
        for (Index k = 0; k < 5; ++k) sum += d.u(i, k) * d.s[k] * d.v(j, k);
        CHECK(std::abs(sum - a(i, j)) < 0.3 * 0.3 * 0.3 * 0.3 * 0.3 + 1e-9);
      }
    CHECK_THROWS_AS(graft::randomized_svd(a, 21, 1, generator), graft::ValueError);
  }
}
