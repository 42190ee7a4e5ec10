// Variants of LoRA that its configuration asks for.
#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/low_rank/alora.hpp"
#include "graft/adapters/low_rank/bdlora.hpp"
#include "graft/adapters/low_rank/lora.hpp"
#include "graft/adapters/low_rank/lora_qalora.hpp"
#include "graft/adapters/low_rank/velora.hpp"

using graft::BasicALoRA;
using graft::BasicBDLoRA;
using graft::BasicLoRA;
using graft::BasicLoRAQA;
using graft::BasicTensor;
using graft::BasicVeLoRA;
using graft::ConfigValue;
using graft::Index;
using graft::LoRAConfig;

namespace {

LoRAConfig block_diagonal(const char* list, Index blocks) {
  LoRAConfig config{.rank = 4, .alpha = 8};
  config.use_bdlora = ConfigValue::Map{{list, ConfigValue::List{"proj"}}, {"nblocks", blocks}};
  return config;
}

}  // namespace

TEST_CASE("BD-LoRA keeps the blocks of one factor and has LoRA's properties") {
  const auto a = block_diagonal("target_modules_bd_a", 2),
             b = block_diagonal("target_modules_bd_b", 2);
  for (const auto& config : {a, b}) {
    CHECK(checks::change_at_init<BasicBDLoRA<double>>(config) == 0);
    CHECK(checks::gradient_error<BasicBDLoRA<double>>(config) < 1e-8);
    CHECK(checks::merge_error<BasicBDLoRA<float>>(config) < 1e-5);
  }
  CHECK(checks::trained<BasicBDLoRA<float>>(a) == 4 * 12 / 2 + 4 * 10);
  CHECK(checks::trained<BasicBDLoRA<float>>(b) == 4 * 12 + 4 * 10 / 2);
}

TEST_CASE("BD-LoRA refuses sites that no list names, and sizes that the blocks do not divide") {
  auto config = block_diagonal("target_modules_bd_a", 2);
  const auto layer = checks::random_layer<float>(10, 12, 1);
  CHECK_THROWS_WITH(checks::make<BasicBDLoRA<float>>(config, checks::site_of(layer, "other")),
                    Catch::Contains("match_strict"));
  config = block_diagonal("target_modules_bd_a", 3);
  CHECK_THROWS_WITH(checks::make<BasicBDLoRA<float>>(config, checks::site_of(layer)),
                    Catch::Contains("3 blocks"));
}

TEST_CASE("variants of LoRA cannot be combined") {
  auto config = block_diagonal("target_modules_bd_a", 2);
  config.use_dora = true;
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("use_dora") && Catch::Contains("bdlora"));
}

TEST_CASE("aLoRA runs from the last invocation on, and not at all in a row without one") {
  LoRAConfig config{.rank = 2, .alpha = 4};
  config.alora_invocation_tokens = ConfigValue::List{7, 8};
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto site = checks::site_of(layer);
  const auto activated = checks::make<BasicALoRA<double>>(config, site);
  config.alora_invocation_tokens = nullptr;
  const auto always = checks::make<BasicLoRA<double>>(config, site);
  for (std::size_t i = 0; i < 2; ++i) {
    const auto value = checks::random_tensor<double>(always.tensors()[i].parameter.shape(), 3);
    always.tensors()[i].parameter.assign(value.clone());
    activated.tensors()[i].parameter.assign(value.clone());
  }
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 3;
  context->seq_len = 5;
  context->ids = {7, 8, 1, 7, 8, /**/ 1, 7, 2, 8, 7, /**/ 8, 1, 7, 8, 2};
  const auto x = checks::random_tensor<double>({15, 6}, 2);
  const auto plain = checks::base_output(layer, x), full = checks::output(always, layer, x);
  const auto run = [&] {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    tape.set_context(context);
    return activated.apply(layer, tape.constant(x)).value();
  };
  const auto expect = [&](const BasicTensor<double>& y, const std::vector<Index>& active) {
    for (Index t = 0; t < 15; ++t) {
      const bool on = std::find(active.begin(), active.end(), t) != active.end();
      for (Index o = 0; o < 5; ++o) CHECK(y(t, o) == Approx((on ? full : plain)(t, o)));
    }
  };
  expect(run(), {3, 4, 12, 13, 14});
  // Tokens that a cache holds count: here the second row saw them before.
  context->past_ids = {1, 1, 7, 8, 1, 7};
  expect(run(), {3, 4, 5, 6, 7, 8, 9, 12, 13, 14});
  CHECK_THROWS_WITH(merge_linear(layer, activated), Catch::Contains("invocation"));
}

TEST_CASE("VeLoRA is LoRA but for the gradient of A, which sees compressed inputs") {
  LoRAConfig config{.rank = 3, .alpha = 6};
  config.velora_config = ConfigValue::Map{{"num_groups", 5}, {"scale", 0.5}};
  const auto layer = checks::random_layer<double>(7, 12, 1);
  const auto velora = checks::make<BasicVeLoRA<double>>(config, checks::site_of(layer));
  checks::randomize(velora);
  const auto list = velora.tensors();
  const auto a = list[0].parameter, b = list[1].parameter, v = list.back().parameter;
  CHECK(v.shape() == graft::Shape{3});
  const auto x = checks::random_tensor<double>({4, 12}, 2),
             dy = checks::random_tensor<double>({4, 7}, 3);
  graft::BasicTape<double> tape;
  const auto y = velora.apply(layer, tape.constant(x));
  CHECK(checks::relative_error(y.value(), checks::output(velora, layer, x)) < 1e-13);
  tape.backward(y, dy);
  // By hand: pieces of 3 (the last two groups are padding), replaced by v (v · piece) / 2.
  CHECK(graft::kernels::dot(v.value().data(), v.value().data(), 3) == Approx(1));
  const auto h = graft::detail::product(dy, b.value(), 2.0);
  double error = 0;
  for (Index k = 0; k < 3; ++k)
    for (Index i = 0; i < 12; ++i) {
      double expected = 0;
      for (Index t = 0; t < 4; ++t) {
        double c = 0;
        for (Index j = 0; j < 3; ++j) c += v.value()[j] * x(t, i / 3 * 3 + j);
        expected += h(t, k) * 0.5 * c * v.value()[i % 3];
      }
      error = std::max(error, std::abs(expected - a.grad()(k, i)));
    }
  CHECK(error < 1e-12);
  CHECK(checks::merge_error<BasicVeLoRA<float>>(config) < 1e-5);
}

TEST_CASE("LoRA with use_qalora pools groups of inputs") {
  LoRAConfig config{.rank = 3, .alpha = 6};
  config.use_qalora = true;
  config.qalora_group_size = 4;
  CHECK(checks::change_at_init<BasicLoRAQA<double>>(config) == 0);
  CHECK(checks::gradient_error<BasicLoRAQA<double>>(config) < 1e-8);
  CHECK(checks::merge_error<BasicLoRAQA<float>>(config) < 1e-5);
  CHECK(checks::trained<BasicLoRAQA<float>>(config) == 3 * (12 / 4 + 10));
  config.qalora_group_size = 5;
  const auto layer = checks::random_layer<float>(10, 12, 1);
  CHECK_THROWS_WITH(checks::make<BasicLoRAQA<float>>(config, checks::site_of(layer)),
                    Catch::Contains("qalora_group_size 5"));
}
