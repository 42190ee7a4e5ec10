#include "graft/adapters/low_rank/light_peft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using graft::Tensor;
namespace light = graft::light_peft;

TEST_CASE("Light-PEFT removes the smallest masks, and leaves every layer one") {
  const std::vector<Tensor> masks{Tensor::from({0.1F, -0.9F, 0.5F}, {3}),
                                  Tensor::from({-0.01F, 0.02F, 0.03F}, {3})};
  const auto heads = light::kept_heads(masks, 1.0 / 3);
  CHECK(heads[0] == std::vector<char>{0, 1, 1});
  CHECK(heads[1] == std::vector<char>{0, 1, 1});
  const auto neurons = light::kept_neurons(masks, 0.5);
  CHECK(neurons[0] == std::vector<char>{1, 1, 1});
  CHECK(neurons[1] == std::vector<char>{0, 0, 1});
}

TEST_CASE("Light-PEFT removes LoRAs, then ranks of those that are left") {
  const auto kept = light::kept_ranks({0.3, 0.1, 0.2}, {{1, 4}, {9, 9}, {2, 3}}, 0.34, 0.5);
  CHECK(kept[0] == std::vector<char>{0, 1});
  CHECK(kept[1] == std::vector<char>{0, 0});
  CHECK(kept[2] == std::vector<char>{0, 1});
  CHECK(light::averaged({{1, 2}, {3, 4}, {5, 6}}, true) == std::vector<double>{4, 5});
  CHECK(light::averaged({{1, 2}, {3, 4}, {5, 6}}, false) == std::vector<double>{3, 4});
}

TEST_CASE("the importance of a module leaves out padding") {
  const auto delta = Tensor::from({3, 4, 1, 0, 0, 7}, {3, 2}),
             h = Tensor::from({0, 10, 2, 0, 1, 0}, {3, 2});
  CHECK(light::module_importance(delta, h, {1, 1, 0}) == Approx(0.5));
  CHECK(light::module_importance(delta, h, {}) == Approx((0.5 + 0.5 + 7) / 3));
}

TEST_CASE("a masked head contributes nothing, masks of one change nothing") {
  graft::BasicTape<double> tape;
  const graft::BasicParameter<double> mask(graft::BasicTensor<double>::from({1.0, 0.0, 2.0}, {3}));
  const auto x = tape.leaf(checks::random_tensor<double>({2, 6}, 1));
  const auto y = graft::BasicLightMasks<double>::mask_heads(x, mask);
  for (Index r = 0; r < 2; ++r)
    for (Index j = 0; j < 6; ++j)
      CHECK(y.value()(r, j) == x.value()(r, j) * (j < 2 ? 1 : j < 4 ? 0 : 2));
}

TEST_CASE("ranks that are taken away leave the function of the others") {
  const auto layer = checks::random_layer<double>(6, 5, 1);
  graft::LightPEFTConfig config;
  config.rank = 4;
  auto lora = checks::make<graft::BasicLightLoRA<double>>(config, checks::site_of(layer));
  checks::randomize(lora);
  const auto x = checks::random_tensor<double>({3, 5}, 2);
  auto b = lora.lora().b().value().clone();
  for (Index i = 0; i < 6; ++i) b(i, 1) = b(i, 2) = 0;
  lora.lora().b().assign(b);
  const auto before = checks::output(lora, layer, x);
  lora.keep({1, 0, 0, 1});
  CHECK(lora.lora().a().shape() == graft::Shape{2, 5});
  CHECK(checks::relative_error(checks::output(lora, layer, x), before) < 1e-14);
  lora.keep({0, 0});
  CHECK(checks::relative_error(checks::output(lora, layer, x), checks::base_output(layer, x)) == 0);
  // A file with fewer ranks shapes a new one.
  auto other = checks::make<graft::BasicLightLoRA<double>>(config, checks::site_of(layer));
  const graft::Shape a{3, 5}, c{6, 3};
  other.before_load([&](std::string_view name) { return name == "lora_A.weight" ? &a : &c; });
  CHECK(other.lora().b().shape() == c);
}
