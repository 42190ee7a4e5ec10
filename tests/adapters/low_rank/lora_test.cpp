#include "graft/adapters/low_rank/lora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicLoRA;
using graft::ConfigValue;
using graft::Index;
using graft::LoRA;
using graft::LoRAConfig;
using graft::Tape;
using graft::Tensor;

TEST_CASE("LoRA leaves the layer as it is at the start for every init that promises so") {
  for (ConfigValue init : {ConfigValue(true), ConfigValue("gaussian"), ConfigValue("orthogonal"),
                           ConfigValue("mica")}) {
    LoRAConfig config{.rank = 4, .alpha = 8};
    config.init_lora_weights = init;
    CHECK(checks::change_at_init<BasicLoRA<double>>(config) < 1e-13);
  }
  LoRAConfig random{.rank = 4};
  random.init_lora_weights = false;
  CHECK(checks::change_at_init<BasicLoRA<double>>(random) > 0.01);
}

TEST_CASE("PiSSA and OLoRA move a part of the weight into the factors and change nothing in sum") {
  for (const char* name : {"pissa", "pissa_niter_2", "olora"}) {
    for (const auto& [out, in] : {std::pair<Index, Index>{10, 12}, {12, 10}}) {
      auto layer = checks::random_layer<double>(out, in, 1);
      const auto before = layer;
      auto site = checks::site_of(layer);
      site.replace_weight = [&](graft::BasicTensor<double> w) {
        layer = graft::BasicDenseLinear<double>(std::move(w), layer.bias());
      };
      LoRAConfig config{.rank = 3, .alpha = 6};
      config.init_lora_weights = name;
      const auto lora = checks::make<BasicLoRA<double>>(config, site);
      const auto x = checks::random_tensor<double>({5, in}, 2);
      CHECK(checks::relative_error(checks::output(lora, layer, x), checks::base_output(before, x)) <
            1e-12);
      CHECK(checks::relative_error(layer.dense_weight(), before.dense_weight()) > 0.01);
    }
  }
}

TEST_CASE("PiSSA by power iterations comes near the exact one, and nearer with more of them") {
  const auto factors = [](const char* name) {
    auto layer = checks::random_layer<double>(30, 40, 1);
    auto site = checks::site_of(layer);
    site.replace_weight = [](const graft::BasicTensor<double>&) {};
    LoRAConfig config{.rank = 4, .alpha = 4};
    config.init_lora_weights = name;
    const auto lora = checks::make<BasicLoRA<double>>(config, site);
    return graft::detail::product(lora.b().value(), lora.a().value());
  };
  const auto exact = factors("pissa");
  const double few = checks::relative_error(factors("pissa_niter_1"), exact),
               many = checks::relative_error(factors("pissa_niter_60"), exact);
  CHECK(few > 1e-3);
  CHECK(many < 1e-3);
  CHECK(many < few / 10);
  for (const char* name : {"pissa_niter_", "pissa_niter_-1", "pissa_niter_4x"})
    CHECK_THROWS_WITH(factors(name), Catch::Contains(name) && Catch::Contains("pissa_niter_N"));
}

TEST_CASE("an init that rewrites the weight is refused where that cannot be") {
  LoRAConfig config{.rank = 3};
  config.init_lora_weights = "pissa";
  const auto layer = checks::random_layer<float>(6, 8, 1);
  CHECK_THROWS_WITH(LoRA(config, layer), Catch::Contains("rewrites the weight"));
  config.rank = 7;
  config.init_lora_weights = "mica";
  CHECK_THROWS_WITH(LoRA(config, layer), Catch::Contains("at most 6"));
  config.init_lora_weights = "unheard-of";
  CHECK_THROWS_WITH(LoRA(config, layer), Catch::Contains("unheard-of") && Catch::Contains("pissa"));
}

TEST_CASE("MiCA trains A alone") {
  LoRAConfig config{.rank = 4};
  config.init_lora_weights = "mica";
  CHECK(checks::trained<LoRA>(config, 10, 12) == 4 * 12);
  const auto layer = checks::random_layer<float>(10, 12, 1);
  CHECK_FALSE(LoRA(config, layer).b().trainable());
}

TEST_CASE("gradients of LoRA agree with differences, with rsLoRA, a bias and odd sizes too") {
  CHECK(checks::gradient_error<BasicLoRA<double>>({.rank = 4, .alpha = 8}) < 1e-8);
  CHECK(checks::gradient_error<BasicLoRA<double>>({.rank = 3, .alpha = 5, .use_rslora = true}, 7,
                                                  13) < 1e-8);
  LoRAConfig with_bias{.rank = 2};
  with_bias.lora_bias = true;
  CHECK(checks::gradient_error<BasicLoRA<double>>(with_bias, 5, 3) < 1e-8);
}

TEST_CASE("a merged LoRA layer computes what the unmerged one computes") {
  CHECK(checks::merge_error<LoRA>({.rank = 4, .alpha = 8}) < 1e-5);
  CHECK(checks::merge_error<LoRA>({.rank = 20, .alpha = 8}, 10, 12, false) < 1e-5);
  LoRAConfig with_bias{.rank = 4};
  with_bias.lora_bias = true;
  CHECK(checks::merge_error<LoRA>(with_bias) < 1e-5);
}

TEST_CASE("LoRA trains rank times inputs plus outputs") {
  CHECK(checks::trained<LoRA>({.rank = 4}, 10, 12) == 4 * (10 + 12));
  LoRAConfig with_bias{.rank = 4};
  with_bias.lora_bias = true;
  CHECK(checks::trained<LoRA>(with_bias, 10, 12) == 4 * (10 + 12) + 10);
}

TEST_CASE("dropout acts on the low-rank branch only and repeats by seed") {
  const auto layer = checks::random_layer<float>(6, 40, 1);
  LoRAConfig config{.rank = 4, .dropout = 0.5};
  const LoRA lora(config, layer);
  checks::randomize(lora);
  const auto x = checks::random_tensor<float>({3, 40}, 2);
  const auto run = [&](std::uint64_t seed, bool training) {
    Tape tape({.training = training, .seed = seed});
    return lora.apply(layer, tape.constant(x)).value();
  };
  CHECK(checks::relative_error(run(1, true), run(1, true)) == 0);
  CHECK(checks::relative_error(run(1, true), run(2, true)) > 1e-3);
  CHECK(checks::relative_error(run(1, false), run(2, false)) == 0);
}

TEST_CASE("gradients agree with differences under dropout") {
  const auto layer = checks::random_layer<double>(6, 10, 1);
  const auto lora =
      checks::make<BasicLoRA<double>>({.rank = 3, .dropout = 0.4}, checks::site_of(layer));
  checks::randomize(lora);
  const graft::BasicParameter<double> x(checks::random_tensor<double>({4, 10}, 3));
  const auto weights = checks::random_tensor<double>({4, 6}, 4);
  const auto loss = [&](graft::BasicTape<double>& outer) {
    graft::BasicTape<double>& tape = outer;
    tape.set_random_calls(0);
    return sum(mul(lora.apply(layer, tape.parameter(x)), tape.constant(weights)));
  };
  CHECK(graft::gradient_check(loss, {x, lora.a(), lora.b()}).relative_error < 1e-8);
}

TEST_CASE("an adapted layer can be adapted again, and both adapters learn") {
  const auto frozen = checks::random_layer<float>(6, 8, 1);
  const graft::Adapted inner(frozen, LoRA({.rank = 2}, frozen, 1));
  const graft::Adapted outer(inner, LoRA({.rank = 3}, inner, 2));
  CHECK(outer.parameters().size() == 4);
  checks::randomize(inner.adapter());
  checks::randomize(outer.adapter(), 0.3, 50);
  const auto x = checks::random_tensor<float>({4, 8}, 2);
  Tape tape;
  const auto y = outer(tape.constant(x));
  CHECK(checks::relative_error(checks::base_output(outer.merge(), x), y.value()) < 1e-5);
  tape.backward(mean(square(y)));
  for (const auto& p : outer.parameters()) CHECK(static_cast<bool>(p.grad()));
}

TEST_CASE("a switched-off adapter gives the bits of the frozen layer") {
  const auto frozen = checks::random_layer<float>(6, 8, 1);
  graft::Adapted layer(frozen, LoRA({.rank = 2}, frozen));
  checks::randomize(layer.adapter());
  const auto x = checks::random_tensor<float>({4, 8}, 2);
  layer.set_enabled(false);
  Tape tape;
  CHECK(checks::relative_error(layer(tape.constant(x)).value(), checks::base_output(frozen, x)) ==
        0);
}

TEST_CASE("a configuration that cannot be is refused and says why") {
  const auto layer = checks::random_layer<float>(6, 8, 1);
  CHECK_THROWS_WITH(LoRA({.rank = 0}, layer), Catch::Contains("rank 0"));
  CHECK_THROWS_WITH(LoRA({.dropout = 1.5}, layer), Catch::Contains("dropout"));
  CHECK_THROWS_WITH(LoRA({.bias = "some"}, layer), Catch::Contains("some"));
}
