#include "graft/adapters/prompts/p_tuning.hpp"

#include "adapters/prompts/tiny_llama.hpp"

namespace {

graft::PTuningConfig p_tuning_config(const std::string& encoder) {
  graft::PTuningConfig c;
  c.prompt.num_virtual_tokens = 3;
  c.encoder_reparameterization_type = encoder;
  c.encoder_hidden_size = 5;
  return c;
}

}  // namespace

TEST_CASE("P-tuning with an MLP: count, gradients, generation") {
  prompts::Setup<double> setup(p_tuning_config("MLP"));
  CHECK(setup.set().trainable_elements() == 3 * 12 + (5 * 12 + 5) + (5 * 5 + 5) + (12 * 5 + 12));
  CHECK(setup.gradient_error() < 1e-6);
  prompts::Setup<float> single(p_tuning_config("MLP"));
  single.expect_cached_generation();
}

TEST_CASE("P-tuning with an LSTM of two layers: count, gradients") {
  prompts::Setup<double> setup(p_tuning_config("LSTM"));
  const graft::Index first = 2 * (20 * 12 + 20 * 5 + 40), second = 2 * (20 * 10 + 20 * 5 + 40);
  CHECK(setup.set().trainable_elements() ==
        3 * 12 + first + second + (10 * 10 + 10) + (12 * 10 + 12));
  CHECK(setup.gradient_error() < 1e-6);
}

TEST_CASE("A finished file of P-tuning holds the prompt, one for going on the encoder") {
  prompts::Setup<double> setup(p_tuning_config("LSTM"));
  CHECK(setup.expect_same_after_saving() == std::vector<std::string>{"prompt_embeddings"});
  const auto loaded = setup.adapters.at("again").tensors();
  REQUIRE(loaded.size() == 1);
  CHECK(loaded[0].tensor.parameter.trainable());
  prompts::Setup<double> other(p_tuning_config("MLP"));
  CHECK(other.expect_same_after_saving(true).size() == 7);
  CHECK(other.adapters.at("again").tensors().size() == 7);
}

TEST_CASE("P-tuning refuses an unknown encoder") {
  prompts::Setup<double> setup;
  CHECK_THROWS_WITH(setup.adapters.add("p", p_tuning_config("GRU")), Catch::Contains("GRU"));
}
