#include "graft/adapters/prompts/prompt_tuning.hpp"

#include "adapters/prompts/tiny_llama.hpp"

using graft::PromptTuningConfig;

namespace {

PromptTuningConfig prompt_tuning_config(graft::Index tokens = 3) {
  PromptTuningConfig c;
  c.prompt.num_virtual_tokens = tokens;
  return c;
}

}  // namespace

TEST_CASE("Prompt tuning: count, gradients, generation, configuration") {
  prompts::Setup<double> setup(prompt_tuning_config());
  CHECK(setup.set().trainable_elements() == 3 * prompts::kWidth);
  CHECK(setup.gradient_error() < 1e-6);
  CHECK_THROWS_WITH(setup.adapters.merge(), Catch::Contains("cannot be folded"));
  const auto saved = setup.set().config();
  CHECK(*saved.at("token_dim").get_if<std::int64_t>() == prompts::kWidth);
  CHECK(*saved.at("num_transformer_submodules").get_if<std::int64_t>() == 1);
  prompts::Setup<float> single(prompt_tuning_config());
  single.expect_cached_generation();
}

TEST_CASE("Virtual tokens that are words of the vocabulary change nothing but the positions") {
  prompts::Setup<double> setup;
  auto c = prompt_tuning_config(4);
  c.prompt_tuning_init = "TEXT";
  c.prompt_tuning_init_text = "some words";
  CHECK_THROWS_WITH(setup.adapters.add("p", c), Catch::Contains("needs a tokenizer"));
  setup.adapters.set_tokenizer([](const std::string& text, const std::string&) {
    CHECK(text == "some words");
    return std::vector<std::int32_t>{5, 9, 2};  // too few: repeated
  });
  setup.adapters.add("p", c);
  CHECK(setup.set().config().at("tokenizer_name_or_path").get_if<std::string>() != nullptr);
  const auto with = setup.logits({7, 8});
  setup.adapters.activate({});
  const auto without = setup.logits({5, 9, 2, 5, 7, 8});
  REQUIRE(with.shape() == without.shape());
  CHECK(checks::relative_error(with, without) < 1e-12);
}

TEST_CASE("A start from the vocabulary takes its rows; draws follow torch's order") {
  prompts::Setup<double> setup;
  auto c = prompt_tuning_config(5);
  c.prompt_tuning_init = "SAMPLE_VOCAB";
  setup.adapters.add("p", c, 3);
  graft::TorchGenerator generator(3);
  std::vector<double> skipped(5 * prompts::kWidth);
  generator.normal(skipped.data(), static_cast<graft::Index>(skipped.size()), 0, 1);
  const auto rows = setup.adapters.at("p").parameters().at(0).value();
  for (graft::Index i = 0; i < 5; ++i) {
    const auto id = static_cast<std::int32_t>(generator.randint(prompts::kVocabulary));
    const auto row = setup.model.embed_tokens.table().lookup(std::span(&id, 1));
    CHECK(std::equal(row.begin(), row.end(), rows.data() + i * prompts::kWidth));
  }
}

TEST_CASE("Prompt tuning refuses what it cannot be made from") {
  prompts::Setup<double> setup;
  CHECK_THROWS_WITH(setup.adapters.add("p", PromptTuningConfig{}),
                    Catch::Contains("num_virtual_tokens is missing"));
  auto c = prompt_tuning_config();
  c.prompt_tuning_init = "NOTHING";
  CHECK_THROWS_WITH(setup.adapters.add("p", c), Catch::Contains("NOTHING"));
  c = prompt_tuning_config();
  c.prompt.token_dim = 7;
  CHECK_THROWS_WITH(setup.adapters.add("p", c), Catch::Contains("token_dim 7"));
}
