#include "graft/models/windowed.hpp"

#include "adapters/prompts/tiny_llama.hpp"
#include "graft/adapters/prompts/prefix_tuning.hpp"
#include "graft/adapters/prompts/prompt_tuning.hpp"

using graft::Index;

TEST_CASE("A model in windows has the loss and gradients of the whole sequence") {
  graft::models::BasicLlama<double> model(prompts::llama(), prompts::RandomWeights<double>());
  graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
  graft::PrefixTuningConfig prefix;
  prefix.prompt.num_virtual_tokens = 2;
  graft::PromptTuningConfig prompt;
  prompt.prompt.num_virtual_tokens = 3;
  if (GENERATE(false, true))
    adapters.add("a", prefix, 1);
  else
    adapters.add("a", prompt, 1);
  unsigned seed = 3;
  const auto parameters = adapters.at("a").parameters();
  for (const auto& p : parameters) p.assign(checks::random_tensor<double>(p.shape(), seed++, 0.4));
  graft::models::BasicBatch<double> batch;
  batch.batch = 1;
  batch.ids = {4, 1, 9, 9, 2, 0, 7};
  batch.labels = {-100, -100, -100, 9, 2, 0, 7};
  batch.seq_len = 7;
  graft::BasicTape<double> tape;
  const auto loss = model.loss(tape, batch);
  tape.backward(loss);
  std::vector<graft::BasicTensor<double>> expected;
  for (const auto& p : parameters) expected.push_back(p.grad());
  for (const std::vector<Index>& windows :
       {std::vector<Index>{7}, std::vector<Index>{1, 3, 3}, std::vector<Index>{5, 2}}) {
    for (const auto& p : parameters) p.zero_grad();
    CHECK(windowed_backward(model, batch, windows) == Approx(loss.item()));
    for (std::size_t i = 0; i < expected.size(); ++i)
      CHECK(checks::relative_error(parameters[i].grad(), expected[i]) < 1e-10);
  }
  CHECK_THROWS_AS(windowed_backward(model, batch, {3}), graft::ValueError);
  CHECK_THROWS_AS(windowed_backward(model, batch, {7, 0}), graft::ValueError);
  model.recomputed_blocks = 1;
  CHECK_THROWS_WITH(windowed_backward(model, batch, {7}), Catch::Contains("recomputed_blocks"));

  // One label for one token looks like a language model's batch.
  auto config = prompts::llama();
  config.classifier.classes = 3;
  const graft::models::BasicLlama<double> classifier(config, prompts::RandomWeights<double>());
  batch.ids = {4};
  batch.labels = {1};
  batch.seq_len = 1;
  CHECK_THROWS_WITH(windowed_backward(classifier, batch, {1}), Catch::Contains("classifies rows"));
}
