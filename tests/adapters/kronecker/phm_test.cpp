#include "graft/adapters/kronecker/phm.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("the algebra of hypercomplex layers can stay as it was drawn, and be uniform") {
  graft::PHMConfig config;
  config.phm_dim = 8;
  config.learn_phm = false;
  config.phm_c_init = "uniform";
  const auto layer = checks::random_layer<double>(8, 16, 1);
  const auto method =
      checks::make<graft::BasicPHM<double, graft::PHMConfig>>(config, checks::site_of(layer));
  CHECK(graft::trainable_elements(method.tensors()) == 16 * 8 / 8);
  const auto a = method.tensors()[0].parameter;
  CHECK_FALSE(a.trainable());
  double squares = 0;
  for (const double v : a.value()) {
    CHECK(std::abs(v) <= 0.01);
    squares += v * v;
  }
  CHECK(squares / static_cast<double>(a.value().size()) == Approx(1e-4 / 3).epsilon(0.2));
  config.phm_c_init = "glorot";
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("uniform"));
}
