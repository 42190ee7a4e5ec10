#include "graft/adapters/prompts/pasta.hpp"

#include "adapters/prompts/tiny_llama.hpp"

using prompts::kLayers;
using prompts::kWidth;

TEST_CASE("PASTA: identity at the start, count, gradients, generation, files") {
  const graft::PastaConfig config{.num_special_tokens = 2, .special_token_ids = {7, 3}};
  prompts::Setup<double> setup(config);
  CHECK(setup.set().trainable_elements() == kLayers * 2 * kWidth);
  const auto begin = setup.logits({7, 1, 3});
  setup.adapters.activate({});
  CHECK(checks::relative_error(setup.logits({7, 1, 3}), begin) == 0);
  setup.adapters.activate({"p"});
  CHECK(setup.gradient_error() < 1e-6);
  CHECK(setup.expect_same_after_saving() ==
        std::vector<std::string>{"base_model.model.model.layers.0.special_token_embedding.weight",
                                 "base_model.model.model.layers.1.special_token_embedding.weight"});
  prompts::Setup<float> single(config);
  single.expect_cached_generation();
}

TEST_CASE("PASTA moves the first special tokens of a sequence only") {
  prompts::Setup<double> setup(
      graft::PastaConfig{.num_special_tokens = 1, .special_token_ids = {7}, .init = "normal"});
  const auto with = setup.logits({1, 7, 7});
  setup.adapters.activate({});
  const auto without = setup.logits({1, 7, 7});
  const auto cols = with.cols();
  // A causal model: the token before the special one knows nothing of it.
  for (graft::Index j = 0; j < cols; ++j) CHECK(with[j] == without[j]);
  CHECK(with[cols] != without[cols]);
  CHECK_THROWS_WITH(setup.adapters.add("q", graft::PastaConfig{}),
                    Catch::Contains("0 special_token_ids"));
}
