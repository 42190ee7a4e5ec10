#include "graft/adapters/elementwise/bitfit.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicBitFit;
using graft::BitFit;
using graft::BitFitConfig;

TEST_CASE("BitFit adds a bias, and makes one where there is none") {
  CHECK(checks::change_at_init<BasicBitFit<double>>({}) == 0);
  CHECK(checks::gradient_error<BasicBitFit<double>>({}, 7, 13) < 1e-8);
  for (const bool bias : {true, false}) CHECK(checks::merge_error<BitFit>({}, 9, 5, bias) < 1e-5);
  CHECK(checks::trained<BitFit>({}, 10, 12) == 10);
}

TEST_CASE("BitFit knows its subsets") {
  BitFitConfig config;
  config.subset = "some";
  CHECK_THROWS_AS(config.validate(), graft::ValueError);
  config.subset = "targets";
  CHECK_THROWS_AS(config.validate(), graft::ValueError);
  config.subset = "query_mlp";
  const auto names = graft::BitFitMethod<float>::target_modules(config).names;
  CHECK(std::find(names.begin(), names.end(), "intermediate.dense") != names.end());
  CHECK(std::find(names.begin(), names.end(), "down_proj") == names.end());
}
