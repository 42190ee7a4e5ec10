#include "graft/models/t5.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "adapters/random_weights.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/adapters/prompts/prompt_tuning.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/methods.hpp"

using graft::Index;
using graft::models::Task;
using T5 = graft::models::BasicT5<double>;
using Batch = graft::models::BasicBatch<double>;

namespace {

graft::models::T5Config config_of(Task task) {
  graft::models::T5Config c;
  c.vocabulary = 11;
  c.hidden_size = 8;
  c.head_dim = 4;
  c.intermediate_size = 12;
  c.encoder_layers = 1;
  c.decoder_layers = 2;
  c.heads = 2;
  c.buckets = 8;
  c.task = task;
  c.classes = 3;
  return c;
}
T5 model_of(Task task) {
  return {config_of(task), checks::RandomWeights<double>({.biases = true, .random_norms = true})};
}
graft::BasicTensor<double> logits(const T5& model, std::vector<std::int32_t> ids,
                                  std::vector<unsigned char> mask = {}) {
  Batch batch;
  batch.batch = 1;
  batch.seq_len = std::ssize(ids);
  batch.ids = std::move(ids);
  batch.mask = std::move(mask);
  graft::BasicTape<double> tape({.gradients = false, .training = false});
  return model.logits(tape, batch).value().clone();
}
void check_same(const graft::BasicTensor<double>& a, const graft::BasicTensor<double>& b) {
  REQUIRE(a.size() == b.size());
  for (Index i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).margin(1e-12));
}

}  // namespace

TEST_CASE("T5 that classifies texts reads the last real end of a text") {
  const T5 model = model_of(Task::sequence_classification);
  const auto y = logits(model, {5, 7, 1});
  CHECK(y.shape() == graft::Shape{1, 3});
  check_same(y, logits(model, {5, 7, 1, 0, 0}, {1, 1, 1, 0, 0}));
  // Padding may be the end token itself.
  check_same(y, logits(model, {5, 7, 1, 1}, {1, 1, 1, 0}));
  CHECK(logits(model, {5, 1, 7, 1})[0] != Approx(logits(model, {5, 1, 7, 2, 1})[0]));
  CHECK_THROWS_WITH(logits(model, {5, 7, 2}), Catch::Contains("row 0 has no token 1"));
  CHECK_THROWS_WITH(logits(model, {5, 7, 1}, {1, 1, 0}), Catch::Contains("row 0 has no token 1"));
}

TEST_CASE("T5 that classifies tokens has no decoder") {
  const T5 model = model_of(Task::token_classification);
  const auto y = logits(model, {5, 7, 1});
  CHECK(y.shape() == graft::Shape{1, 3, 3});
  for (const auto* site : model.sites().linear)
    CHECK(site->path().find("decoder") == std::string::npos);
  CHECK(model.sites().embedding.size() == 3);
  CHECK(model.sites().linear.back()->path() == "classifier");
  CHECK_FALSE(model.info().encoder_decoder);
}

TEST_CASE("Virtual tokens before the text of T5 move what its classifiers read along") {
  const auto task = GENERATE(Task::sequence_classification, Task::token_classification);
  T5 model = model_of(task);
  graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
  graft::PromptTuningConfig prompt;
  prompt.prompt.num_virtual_tokens = 2;
  adapters.add("prompt", prompt, 1);
  Batch batch;
  batch.batch = 1;
  batch.seq_len = 4;
  batch.ids = {5, 7, 3, 1};
  batch.labels = {2};
  if (task == Task::token_classification) batch.labels = {-100, 2, 0, -100};
  graft::BasicTape<double> tape({.gradients = false, .training = false});
  const auto y = model.logits(tape, batch);
  const bool tokens = task == Task::token_classification;
  CHECK(y.shape() == (tokens ? graft::Shape{1, 6, 3} : graft::Shape{1, 3}));
  const auto text = tokens ? slice(y, 1, 2, 4) : y;
  const auto expected = cross_entropy(reshape(text, {text.size() / 3, 3}),
                                      std::span<const std::int64_t>(batch.labels));
  CHECK(model.loss(tape, batch).item() == Approx(expected.item()));
}

TEST_CASE("A head without classes to tell apart is none for T5") {
  auto config = config_of(Task::embedding);
  CHECK_THROWS_WITH(T5(config, checks::RandomWeights<double>()), Catch::Contains("t5"));
  config.classes = 0;  // a language model
  CHECK(T5(config, checks::RandomWeights<double>()).sites().linear.back()->path() == "lm_head");
}

TEST_CASE("LoRA on the biases of distances of T5 trains in both stacks, and merges") {
  auto config = config_of(Task::sequence_classification);
  config.classes = 0;
  config.encoder_layers = 2;
  T5 model(config, checks::RandomWeights<double>({.random_norms = true}));
  graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
  graft::LoRAConfig lora{.rank = 2,
                         .alpha = 4,
                         .target_modules = {"relative_attention_bias"},
                         .init_lora_weights = false};
  adapters.add("bias", lora, 1);
  Batch batch;
  batch.batch = 2;
  batch.seq_len = 5;
  batch.ids = {5, 7, 3, 1, 0, 2, 9, 4, 6, 1};
  batch.mask = {1, 1, 1, 1, 0, 1, 1, 1, 1, 1};
  batch.labels = {3, 6, 8, 1, 2, 5, 1, -100};
  const auto& set = adapters.at("bias");
  REQUIRE(set.parameters().size() == 4);  // A and B of the encoder and of the decoder
  const auto loss = [&](graft::BasicTape<double>& tape) { return model.loss(tape, batch); };
  CHECK(graft::gradient_check(loss, set.parameters()).relative_error < 1e-6);
  for (const auto& parameter : set.parameters()) {
    double size = 0;
    for (const double g : parameter.grad()) size += std::abs(g);
    CHECK(size > 0);
  }
  const auto of_model = [&] {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    return model.logits(tape, batch).value().clone();
  };
  const auto adapted = of_model();
  batch.row_adapters = {"bias", "bias"};
  check_same(of_model(), adapted);
  batch.row_adapters = {"bias", "__base__"};
  CHECK_THROWS_WITH(of_model(), Catch::Contains("relative_attention_bias") &&
                                    Catch::Contains("'bias' and '__base__'"));
  batch.row_adapters = {};
  adapters.merge();
  check_same(of_model(), adapted);
}
