#include "graft/adapters/prompts/llama_adapter_v2.hpp"

#include "adapters/prompts/tiny_llama.hpp"

using Method = graft::BasicLlamaAdapterV2<double>;
using graft::LlamaAdapterV2;

TEST_CASE("LLaMA-Adapter V2 scales inputs or outputs and adds a bias") {
  graft::LlamaAdapterV2Config output;
  output.side = "output";
  for (const auto& config : {graft::LlamaAdapterV2Config{}, output}) {
    CHECK(checks::change_at_init<Method>(config) == 0);
    CHECK(checks::gradient_error<Method>(config, 7, 13) < 1e-8);
    for (const bool bias : {true, false})
      CHECK(checks::merge_error<LlamaAdapterV2>(config, 9, 5, bias) < 1e-5);
  }
  CHECK(checks::trained<LlamaAdapterV2>({}, 10, 12) == 22);
  CHECK(checks::trained<LlamaAdapterV2>(output, 10, 12) == 20);
  output.side = "both";
  CHECK_THROWS_AS(checks::trained<LlamaAdapterV2>(output), graft::ValueError);
}

namespace {

graft::LlamaAdapterV2Config whole() {
  graft::LlamaAdapterV2Config c;
  c.adapter_len = 3;
  c.adapter_layers = 1;
  c.num_visual_tokens = 2;
  c.visual_dim = 5;
  return c;
}

template <class T>
graft::models::BasicBatch<T> image_batch(unsigned seed) {
  auto batch = prompts::Setup<T>::batch();
  batch.visual = checks::random_tensor<T>({2, 2, 5}, seed);
  return batch;
}

}  // namespace

TEST_CASE("LLaMA-Adapter V2 with prompts: identity for text, count, gradients, files") {
  prompts::Setup<double> setup(whole());
  const auto begin = setup.logits({1, 2, 3});
  setup.adapters.activate({});
  CHECK(checks::relative_error(setup.logits({1, 2, 3}), begin) < 1e-12);
  setup.adapters.activate({"p"});
  const graft::Index d = prompts::kWidth, kv = prompts::kKeyWidth, ff = 14;
  CHECK(setup.set().trainable_elements() ==
        prompts::kLayers * (2 * (3 * d + 2 * kv + 2 * ff) + 2 * d) + d + 3 * d + 4 + 6 * d);
  CHECK(setup.gradient_error() < 1e-6);
  const auto check = graft::gradient_check(
      [&](graft::BasicTape<double>& tape) {
        return setup.model.loss(tape, image_batch<double>(4));
      },
      setup.set().parameters());
  CHECK(check.relative_error < 1e-6);
  setup.expect_same_after_saving();
  CHECK_THROWS_WITH(setup.adapters.merge(), Catch::Contains("cannot be folded"));
}

TEST_CASE(
    "What a batch shows changes what is said of it; its tokens must have the width of the "
    "encoder") {
  prompts::Setup<double> setup(whole());
  setup.randomize();
  const auto loss = [&](unsigned seed) {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    return setup.model.loss(tape, image_batch<double>(seed)).item();
  };
  CHECK(std::abs(loss(4) - loss(5)) > 1e-9);
  auto wrong = image_batch<double>(4);
  wrong.visual = checks::random_tensor<double>({2, 2, 4}, 1);
  graft::BasicTape<double> tape;
  CHECK_THROWS_WITH(setup.model.loss(tape, wrong), Catch::Contains("2 tokens of width 5"));
}

TEST_CASE("A batch of one kind moves the tensors of its group only") {
  prompts::Setup<double> setup(whole());
  setup.randomize();
  graft::BasicTape<double> tape;
  tape.backward(setup.model.loss(tape, image_batch<double>(4)));
  keep_gradients_of("visual", setup.set());
  for (const auto& [key, tensor] : setup.set().tensors())
    CHECK(static_cast<bool>(tensor.parameter.grad()) ==
          (key.find("visual_proj") != std::string::npos));
}
