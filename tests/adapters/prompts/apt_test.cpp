#include "graft/adapters/prompts/apt.hpp"

#include "adapters/method_checks.hpp"
#include "adapters/prompts/tiny_vit.hpp"

using prompts::kLayers;
using prompts::kWidth;

TEST_CASE("APT: count, gradients, generation, files") {
  const graft::AptConfig config{.num_virtual_tokens = 5, .r = 2, .scaling = 0.5};
  prompts::Setup<double> text(config);
  CHECK(text.set().trainable_elements() == kLayers * (5 * kWidth + 2 * kWidth * 2));
  CHECK(text.gradient_error() < 1e-6);
  text.expect_same_after_saving();
  prompts::Setup<float> single(config);
  single.expect_cached_generation();
  prompts::ImageSetup<double> image(config);
  CHECK(image.gradient_error() < 1e-6);
  CHECK(image.keys().front() == "base_model.model.vit.encoder.layer.0.attention.output.apt_prompt");
}

TEST_CASE("APT with a scaling of zero is the base") {
  prompts::Setup<double> setup(graft::AptConfig{.num_virtual_tokens = 5, .r = 2, .scaling = 0});
  setup.randomize();
  const auto with = setup.logits({1, 2, 3});
  setup.adapters.activate({});
  CHECK(checks::relative_error(with, setup.logits({1, 2, 3})) == 0);
  CHECK_THROWS_WITH(setup.adapters.add("q", graft::AptConfig{.r = 0}), Catch::Contains("r 0"));
}

TEST_CASE("APT with a learned scaling starts as the base and learns it") {
  graft::StandaloneInit<double> init(1);
  const graft::BasicApt<double> apt({.num_virtual_tokens = 5, .r = 2, .learn_scale = true}, 6,
                                    init.context());
  CHECK(graft::trainable_elements(apt.tensors()) == 5 * 6 + 2 * 6 * 2 + 1);
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(checks::random_tensor<double>({7, 6}, 2)),
      graft::BasicParameter<double>(checks::random_tensor<double>({7, 6}, 3))};
  for (const auto& t : apt.tensors()) parameters.push_back(t.parameter);
  const auto run = [&](graft::BasicTape<double>& tape) {
    return apt.apply(tape.parameter(parameters[0]), tape.parameter(parameters[1]), {});
  };
  {
    graft::BasicTape<double> tape;
    CHECK(checks::relative_error(run(tape).value(), parameters[1].value()) == 0);
  }
  unsigned seed = 11;
  for (const auto& t : apt.tensors())
    t.parameter.assign(checks::random_tensor<double>(t.parameter.shape(), seed++));
  const auto weights = checks::random_tensor<double>({7, 6}, 4);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              return sum(mul(run(tape), tape.constant(weights)));
            },
            parameters)
            .relative_error < 1e-7);
}
