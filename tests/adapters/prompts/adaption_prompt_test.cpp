#include "graft/adapters/prompts/adaption_prompt.hpp"

#include "adapters/prompts/tiny_llama.hpp"
#include "graft/adapters/prompts/llama_adapter.hpp"

namespace {

graft::AdaptionPromptConfig adaption_config(graft::Index layers = 1) {
  graft::AdaptionPromptConfig c;
  c.adapter_len = 3;
  c.adapter_layers = layers;
  return c;
}

}  // namespace

TEST_CASE("Adaption prompts: count, gradients, generation, files") {
  prompts::Setup<double> setup(adaption_config(2));
  CHECK(setup.set().trainable_elements() == 2 * (3 * prompts::kWidth + 1));
  CHECK(setup.gradient_error() < 1e-6);
  CHECK(*setup.set().config().at("target_modules").get_if<std::string>() == "self_attn");
  CHECK(setup.expect_same_after_saving().size() == 4);
  prompts::Setup<float> single(adaption_config(2));
  single.expect_cached_generation();
}

TEST_CASE("Adaption prompts are the identity at the start, and sit in the last layers") {
  prompts::Setup<double> setup(adaption_config());
  REQUIRE(setup.set().parts().size() == 1);
  CHECK(setup.set().parts()[0].path == "model.layers.1.self_attn");
  const auto with = setup.logits({1, 2, 3});
  setup.adapters.activate({});
  CHECK(checks::relative_error(with, setup.logits({1, 2, 3})) == 0);
  CHECK_THROWS_WITH(setup.adapters.add("q", adaption_config(3)),
                    Catch::Contains("the model has 2"));
  CHECK_THROWS_WITH(setup.adapters.add("q", graft::AdaptionPromptConfig{}),
                    Catch::Contains("adapter_len 0"));
}

TEST_CASE("LLaMA-Adapter has a gate for each head, or one") {
  graft::LlamaAdapterConfig c;
  c.adapter_len = 3;
  prompts::Setup<double> heads(c);
  CHECK(heads.set().trainable_elements() == 2 * (3 * prompts::kWidth + 4));
  CHECK(heads.gradient_error() < 1e-6);
  c.adapter_layers = 1;
  c.gate_per_head = false;
  c.gate_activation = "identity";
  prompts::Setup<double> one(c);
  CHECK(one.set().trainable_elements() == 3 * prompts::kWidth + 1);
  CHECK(one.gradient_error() < 1e-6);
  c.gate_activation = "relu";
  CHECK_THROWS_WITH(one.adapters.add("q", c), Catch::Contains("relu"));
}
