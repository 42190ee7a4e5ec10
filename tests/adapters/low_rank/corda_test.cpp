#include "graft/adapters/low_rank/corda.hpp"

#include <catch2/catch.hpp>
#include <limits>

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("CorDA's covariance divides each batch by its largest element, or leaves it") {
  const auto first = checks::random_tensor<double>({5, 3}, 1),
             second = checks::random_tensor<double>({4, 3}, 2, 10);
  const auto mean = [&](bool normalise) {
    graft::CovarianceMean<double> covariance(normalise);
    covariance.add(first);
    covariance.add(second);
    return covariance.value();
  };
  const auto expected = [&](bool normalise) {
    auto sum = graft::BasicTensor<double>::zeros({3, 3});
    for (const auto& x : {first, second}) {
      const double top = normalise ? *std::max_element(x.begin(), x.end()) : 1;
      for (Index t = 0; t < x.rows(); ++t)
        for (Index i = 0; i < 3; ++i)
          for (Index j = 0; j < 3; ++j) sum(i, j) += x(t, i) * x(t, j) / (2 * top * top);
    }
    return sum;
  };
  for (const bool normalise : {true, false})
    CHECK(checks::relative_error(mean(normalise), expected(normalise)) < 1e-13);
}

TEST_CASE("CorDA refuses covariances that are not finite, and words that it does not know") {
  auto x = checks::random_tensor<double>({5, 3}, 1);
  x(2, 1) = -std::numeric_limits<double>::infinity();
  graft::CovarianceMean<double> covariance(false);
  covariance.add(x);
  CHECK_THROWS_WITH(covariance.value(), Catch::Contains("not finite"));
  graft::CordaConfig config;
  config.normalisation = "tokens";
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("largest or none"));
}
