#include "graft/adapters/prompts/vpt.hpp"

#include "adapters/prompts/tiny_vit.hpp"

using prompts::ImageSetup;
using prompts::kLayers;
using prompts::kWidth;

TEST_CASE("Visual prompts: counts, gradients, names") {
  ImageSetup<double> shallow(graft::VptConfig{.num_tokens = 3});
  CHECK(shallow.set().trainable_elements() == 3 * kWidth);
  CHECK(shallow.gradient_error() < 1e-6);
  ImageSetup<double> deep(graft::VptConfig{.num_tokens = 3, .deep = true});
  CHECK(deep.set().trainable_elements() == kLayers * 3 * kWidth);
  CHECK(deep.gradient_error() < 1e-6);
  CHECK(deep.keys() ==
        std::vector<std::string>{"base_model.model.vit.embeddings.prompt_embeddings",
                                 "base_model.model.vit.encoder.layer.1.prompt_embeddings"});
  ImageSetup<double> projected(graft::VptConfig{.num_tokens = 3, .deep = true, .project = 5});
  CHECK(projected.set().trainable_elements() == kLayers * 3 * 5 + 6 * kWidth);
  CHECK(projected.gradient_error() < 1e-6);
}

TEST_CASE("Visual prompts run for the rows that name them") {
  ImageSetup<double> setup(graft::VptConfig{.num_tokens = 3, .deep = true});
  setup.randomize();
  const auto with = setup.logits();
  setup.adapters.add("q", graft::VptConfig{.num_tokens = 2}, 9);
  const auto other = setup.logits();
  setup.adapters.activate({});
  const auto base = setup.logits();
  CHECK(checks::relative_error(with, base) > 1e-3);
  const auto mixed = setup.logits({"p", "q"});
  const auto single = setup.logits({"__base__", "p"});
  for (graft::Index j = 0; j < 3; ++j) {
    CHECK(mixed(0, j) == Approx(with(0, j)).epsilon(1e-10));
    CHECK(mixed(1, j) == Approx(other(1, j)).epsilon(1e-10));
    CHECK(single(0, j) == Approx(base(0, j)).epsilon(1e-10));
    CHECK(single(1, j) == Approx(with(1, j)).epsilon(1e-10));
  }
}

TEST_CASE("Deep prompts stand before the text of a language model too") {
  prompts::Setup<double> setup(graft::VptConfig{.num_tokens = 2, .deep = true});
  CHECK(setup.gradient_error() < 1e-6);
  setup.expect_same_after_saving();
  prompts::Setup<float> single(graft::VptConfig{.num_tokens = 2, .deep = true});
  single.expect_cached_generation();
  CHECK_THROWS_WITH(setup.adapters.add("q", graft::VptConfig{.num_tokens = 0}),
                    Catch::Contains("num_tokens 0"));
}
