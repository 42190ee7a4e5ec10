#include "graft/adapters/selection/sparse_delta.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/selection/neuroada.hpp"
#include "graft/adapters/selection/static_mask.hpp"

using graft::BasicSparseDelta;

TEST_CASE("a sparse change trains its places and nothing else, and merges") {
  const auto layer = checks::random_layer<double>(5, 7, 1);
  BasicSparseDelta<double> delta(checks::site_of(layer));
  const auto x = checks::random_tensor<double>({4, 7}, 2);
  CHECK(checks::relative_error(checks::output(delta, layer, x), checks::base_output(layer, x)) ==
        0);
  delta.select({0, 8, 33});
  CHECK(graft::trainable_elements(delta.tensors()) == 3);
  CHECK(checks::relative_error(checks::output(delta, layer, x), checks::base_output(layer, x)) ==
        0);
  checks::randomize(delta);
  const auto merged = merge_linear(layer, delta);
  CHECK(checks::relative_error(checks::base_output(merged, x), checks::output(delta, layer, x)) <
        1e-12);
  int changed = 0;
  for (graft::Index i = 0; i < 35; ++i)
    changed += std::abs(merged.dense_weight()[i] - layer.dense_weight()[i]) > 1e-9 ? 1 : 0;
  CHECK(changed == 3);
}

TEST_CASE("a sparse change refuses places outside of the weight") {
  const auto layer = checks::random_layer<float>(5, 7, 1);
  BasicSparseDelta<float> delta(checks::site_of(layer));
  CHECK_THROWS_AS(delta.select({35}), graft::ValueError);
}

TEST_CASE("NeuroAda gives every output k inputs") {
  graft::NeuroAdaConfig config;
  config.k = 3;
  CHECK(checks::change_at_init<graft::BasicNeuroAda<double>>(config) == 0);
  CHECK(checks::gradient_error<graft::BasicNeuroAda<double>>(config, 7, 13) < 1e-8);
  CHECK(checks::merge_error<graft::NeuroAda>(config) < 1e-5);
  CHECK(checks::trained<graft::NeuroAda>(config, 10, 12) == 30);
  config.k = 13;
  CHECK_THROWS_AS(checks::trained<graft::NeuroAda>(config, 10, 12), graft::ValueError);
}
