#include "graft/adapters/prompts/apt.hpp"

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
