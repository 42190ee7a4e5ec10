#include "graft/adapters/low_rank/aslora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using ASLoRA = graft::BasicASLoRA<double>;
using Type = graft::ASLoRAType<double>;

TEST_CASE("ASLoRA on one layer is LoRA: identity, gradients, merge, count") {
  CHECK(checks::change_at_init<ASLoRA>({}) < 1e-12);
  CHECK(checks::gradient_error<ASLoRA>({.rank = 3}) < 1e-7);
  CHECK(checks::merge_error<graft::ASLoRA>({.rank = 3}) < 1e-5);
  CHECK(checks::trained<graft::ASLoRA>({.rank = 3}, 10, 12) == 3 * 22);
  const graft::ASLoRAConfig wrong{.pairs = "all"};
  CHECK_THROWS_WITH(wrong.validate(), Catch::Contains("pairs 'all'"));
}

TEST_CASE("layers of a type share A, and B within their group") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  graft::TorchGenerator generator(3);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  std::vector<ASLoRA> layers;
  for (int k = 0; k < 3; ++k) {
    auto site = checks::site_of(layer, graft::concat("layers.", k, ".proj"));
    site.all_sites.clear();
    for (int i = 0; i < 3; ++i)
      site.all_sites.emplace_back(graft::concat("layers.", i, ".proj"), graft::Shape{5, 6});
    layers.emplace_back(graft::ASLoRAConfig{.rank = 2}, site, context);
  }
  for (Index g = 0; g < 3; ++g)
    layers[0].shared()->b()[static_cast<std::size_t>(g)].assign(
        checks::random_tensor<double>({5, 2}, 10 + static_cast<unsigned>(g)));
  CHECK(graft::trainable_elements(layers[1].tensors()) == 2 * 6 + 3 * 10);
  const auto x = checks::random_tensor<double>({4, 6}, 2);
  CHECK(checks::relative_error(checks::output(layers[1], layer, x),
                               checks::output(layers[2], layer, x)) > 0.01);
  layers[0].shared()->merge(1, 2);
  CHECK(checks::relative_error(checks::output(layers[1], layer, x),
                               checks::output(layers[2], layer, x)) == 0);
  CHECK(graft::trainable_elements(layers[0].tensors()) == 2 * 6 + 2 * 10);
  layers[0].shared()->group_of_layer()->values[0] = 2;
  CHECK_THROWS_AS(layers[0].after_load(), graft::ValueError);
}

TEST_CASE("the most similar groups merge, weighted by their layers, moments too") {
  Type type(graft::BasicTensor<double>::zeros({2, 3}), 4, 4);
  for (unsigned k = 0; k < 4; ++k) type.b()[k].assign(checks::random_tensor<double>({4, 2}, 5 + k));
  type.b()[3].assign(type.b()[0].value().clone());
  CHECK(type.closest(false) == std::pair<Index, Index>{0, 3});
  CHECK(type.distance(0, 3) == 0);
  const auto neighbours = type.closest(true);
  CHECK(neighbours.second == neighbours.first + 1);
  for (unsigned k = 0; k < 4; ++k)
    type.b()[k].mutable_grad() = checks::random_tensor<double>({4, 2}, 15 + k);
  type.step(0.1, 0);
  CHECK_FALSE(type.b()[0].grad());
  const auto b0 = type.b()[0].value().clone(), b1 = type.b()[1].value().clone(),
             b3 = type.b()[3].value().clone(), m0 = type.moments()[0].first.clone(),
             m1 = type.moments()[1].first.clone();
  type.merge(0, 1);
  for (Index i = 0; i < 8; ++i) CHECK(type.moments()[0].first[i] == Approx((m0[i] + m1[i]) / 2));
  type.merge(0, 2);
  CHECK(type.group_of_layer()->values == std::vector<std::int64_t>{0, 0, 1, 0});
  for (Index i = 0; i < 8; ++i)
    CHECK(type.b()[0].value()[i] == Approx((b0[i] + b1[i] + b3[i]) / 3));
  CHECK(type.groups() == 2);
  CHECK(type.moments()[0].steps == 1);
}

TEST_CASE("the schedule of merges ends at 60 % of the run by default") {
  const graft::ASLoRAConfig config;
  int merges = 0;
  for (Index t = 1; t <= 100; ++t) merges += config.merges_after(t, 100, 12) && t <= 60 ? 1 : 0;
  CHECK(merges >= 9);  // from 12 groups to 3
  CHECK_FALSE(config.merges_after(9, 100, 12));
  CHECK(config.merges_after(10, 100, 12));
  CHECK(config.groups_at_the_end(12) == 3);
}
