#include "graft/adapters/elementwise/ia3.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicIA3;
using graft::IA3;
using graft::IA3Config;

TEST_CASE("IA3 changes nothing at the start, scales outputs, or inputs where feed-forward") {
  IA3Config inner;
  inner.feedforward_modules = {"oj"};
  for (const auto& config : {IA3Config{}, inner}) {
    CHECK(checks::change_at_init<BasicIA3<double>>(config) == 0);
    CHECK(checks::gradient_error<BasicIA3<double>>(config, 7, 13) < 1e-8);
    CHECK(checks::merge_error<IA3>(config) < 1e-5);
  }
  CHECK(checks::trained<IA3>({}, 10, 12) == 10);
  CHECK(checks::trained<IA3>(inner, 10, 12) == 12);
}

TEST_CASE("IA3 begins random if asked to") {
  IA3Config config;
  config.init_ia3_weights = false;
  CHECK(checks::change_at_init<BasicIA3<double>>(config) > 0.01);
}
