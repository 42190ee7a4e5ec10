#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/low_rank/capaboost.hpp"
#include "graft/adapters/low_rank/flora.hpp"
#include "graft/adapters/low_rank/glora_supernet.hpp"
#include "graft/adapters/low_rank/mos.hpp"
#include "graft/adapters/low_rank/msplora.hpp"
#include "graft/adapters/low_rank/rosa.hpp"
#include "graft/adapters/low_rank/switched.hpp"
#include "graft/adapters/low_rank/three_factors.hpp"

namespace {

template <template <class> class M>
void check(const typename M<double>::Config& config, graft::Index count) {
  CHECK(checks::change_at_init<M<double>>(config) < 1e-12);
  CHECK(checks::gradient_error<M<double>>(config) < 1e-7);
  CHECK(checks::merge_error<M<float>>(config) < 1e-5);
  CHECK(checks::trained<M<float>>(config, 10, 12) == count);
}

}  // namespace

TEST_CASE("low-rank variants begin as the identity, have right gradients and merge") {
  SECTION("CapaBoost") { check<graft::BasicCapaBoost>({.rank = 4}, 4 * 22); }
  SECTION("FLoRA") { check<graft::BasicFLoRA>({.rank = {4, 3}}, 12 + 48 + 30); }
  SECTION("GLoRA") { check<graft::BasicGLoRASupernet>({.rank = 3}, 6 * 22 + 3 * 13 + 20); }
  SECTION("MSPLoRA") { check<graft::BasicMSPLoRA>({.rank = 8}, 14 * 22); }
  SECTION("MoS") { check<graft::BasicMoS>({.rank = 2, .shards_per_vector = 2}, 2 * 22); }
}

TEST_CASE("a switch that is off leaves the layer as it is") {
  graft::SelectiveLoRAConfig config;
  config.init_score = 0.05;
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto method =
      checks::make<graft::BasicSelectiveLoRA<double>>(config, checks::site_of(layer));
  method.tensors()[1].parameter.assign(checks::random_tensor<double>({5, 8}, 3));
  const auto x = checks::random_tensor<double>({4, 6}, 2);
  CHECK(checks::relative_error(checks::output(method, layer, x), checks::base_output(layer, x)) ==
        0);
  method.tensors()[2].parameter.assign(graft::BasicTensor<double>::full({1}, 0.5));
  CHECK(checks::relative_error(checks::output(method, layer, x), checks::base_output(layer, x)) >
        0.01);
}

TEST_CASE(
    "the Nyström factors with a pseudo-inverse give back the first rows "
    "and columns") {
  const auto w = checks::random_tensor<double>({7, 9}, 5);
  const auto f = graft::detail::nystroem_factors(w, 3, true);
  const auto product = graft::detail::product(graft::detail::product(f.b, f.n), f.a);
  for (graft::Index i = 0; i < 7; ++i)
    for (graft::Index j = 0; j < 9; ++j)
      if (i < 3 || j < 3) CHECK(product(i, j) == Approx(w(i, j)).margin(1e-8));
}

TEST_CASE("CapaBoost in fours keeps two of each four") {
  graft::CapaBoostConfig config;
  config.sparsity_type = "2:4";
  const auto layer = checks::random_layer<float>(6, 8, 1);
  const auto method = checks::make<graft::CapaBoost>(config, checks::site_of(layer));
  const auto mask = method.tensors()[2].index->values;
  for (std::size_t i = 0; i < mask.size(); i += 4)
    CHECK(mask[i] + mask[i + 1] + mask[i + 2] + mask[i + 3] == 2);
  const auto odd = checks::random_layer<float>(6, 7, 1);
  CHECK_THROWS_AS(checks::make<graft::CapaBoost>(config, checks::site_of(odd)), graft::ValueError);
}

TEST_CASE(
    "RoSA chooses the places of its sparse part once, and works without "
    "a low-rank part") {
  graft::RoSAConfig config;
  CHECK(config.collects(0));
  CHECK_FALSE(config.has_sparse(0));
  CHECK(config.has_sparse(1));
  config.schedule = "wl3";
  CHECK_FALSE(config.collects(2));
  CHECK(config.collects(3));
  config.schedule = "wl";
  CHECK_THROWS_AS(config.validate(), graft::ValueError);
  config.schedule = "spa_only";
  config.density = 0.2;
  const auto layer = checks::random_layer<double>(5, 6, 1);
  auto method = checks::make<graft::BasicRoSA<double>>(config, checks::site_of(layer));
  CHECK(graft::trainable_elements(method.tensors()) == 0);
  method.collect(true);
  graft::BasicTape<double> tape;
  const auto x = tape.leaf(checks::random_tensor<double>({4, 6}, 2));
  tape.backward(sum(method.apply(layer, x)));
  method.finish_collecting(config.density);
  CHECK(graft::trainable_elements(method.tensors()) == 6);
  checks::randomize(method);
  const auto input = checks::random_tensor<double>({3, 6}, 4);
  CHECK(checks::relative_error(checks::base_output(merge_linear(layer, method), input),
                               checks::output(method, layer, input)) < 1e-12);
}
