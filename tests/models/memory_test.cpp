#include "graft/models/memory.hpp"

#include <catch2/catch.hpp>

#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/optim/adamw.hpp"

using graft::Index;
using graft::MemoryPool;

namespace {

/// A small decoder with LoRA on all linear layers, or on those of one block, and rows for it.
struct Setup {
  graft::models::LlamaConfig config;
  graft::models::Llama model;
  std::int64_t base = MemoryPool::global().stats().bytes_in_use;
  graft::MethodRegistry<float> registry;
  graft::AdapterModel adapters;
  graft::models::Batch batch;
  Index trained = 0;

  Setup(Index vocabulary, Index layers, Index recomputed, Index rows, Index tokens,
        graft::ConfigValue::List trained_layers = {})
      : config(config_of(vocabulary, layers)),
        model(config, graft::models::ZeroWeights<float>([](const std::string&) { return false; })),
        registry(lora()),
        adapters(model.sites(), registry) {
    model.recomputed_blocks = recomputed;
    auto options = registry.at("LORA").defaults;
    options["r"] = Index{4};
    options["target_modules"] = graft::ConfigValue(std::string("all-linear"));
    if (!trained_layers.empty())
      options["layers_to_transform"] = graft::ConfigValue(std::move(trained_layers));
    graft::TorchGenerator generator(0);
    trained = adapters.add("default", options, generator).trainable_elements();
    batch.batch = rows;
    batch.seq_len = tokens;
    for (Index i = 0; i < rows * tokens; ++i)
      batch.ids.push_back(static_cast<std::int32_t>(i % 61));
    batch.labels.assign(batch.ids.begin(), batch.ids.end());
  }

  /// The highest number of bytes that the tensors of a second step take at once.
  double peak(bool bf16) {
    graft::AdamW optimizer(adapters.parameters(), {.learning_rate = 1e-3});
    for (int step = 0; step < 2; ++step) {
      MemoryPool::global().reset_peak();
      graft::Tape tape({.bf16_saved = bf16});
      tape.backward(model.loss(tape, batch));
      optimizer.step();
      optimizer.zero_grad();
    }
    return static_cast<double>(MemoryPool::global().stats().peak_bytes_in_use - base);
  }
  /// That peak over the predicted one.
  double measured_over_predicted(bool bf16, Index first_trained = 0) {
    return peak(bf16) /
           graft::models::step_bytes(config, {.batch = batch.batch,
                                              .tokens = batch.seq_len,
                                              .trained = trained,
                                              .rank = 7 * 4,
                                              .first_trained = first_trained,
                                              .recomputed_blocks = model.recomputed_blocks,
                                              .bf16_saved = bf16});
  }

 private:
  static graft::models::LlamaConfig config_of(Index vocabulary, Index layers) {
    graft::models::LlamaConfig c;
    c.vocabulary = vocabulary;
    c.hidden_size = 64;
    c.intermediate_size = 192;
    c.layers = layers;
    c.heads = 4;
    c.kv_heads = 2;
    c.head_dim = 16;
    c.rope.dim = 16;
    return c;
  }
  static graft::MethodRegistry<float> lora() {
    graft::MethodRegistry<float> registry;
    registry.add(graft::MethodList<graft::LoRAMethod<float>>{});
    return registry;
  }
};

}  // namespace

TEST_CASE("The predicted memory of a step is what its tensors take at most") {
  const Index recomputed = GENERATE(0, 5, 11, 12);
  const bool bf16 = GENERATE(false, true);
  const Index vocabulary = GENERATE(64, 8192);
  CAPTURE(recomputed, bf16, vocabulary);
  Setup setup(vocabulary, 12, recomputed, 4, 256);
  const double ratio = setup.measured_over_predicted(bf16);
  CHECK(ratio > 0.9);
  CHECK(ratio < 1.1);
}

TEST_CASE("The predicted memory knows the first block that is trained") {
  const Index layers = 12, first = GENERATE(0, 5, 10, 11), recomputed = GENERATE(0, 3, 12);
  const bool bf16 = GENERATE(false, true);
  CAPTURE(first, recomputed, bf16);
  graft::ConfigValue::List trained;
  for (Index l = first; l < layers; ++l) trained.emplace_back(l);
  Setup setup(64, layers, recomputed, 4, 256, trained);
  const auto& set = setup.adapters.at("default");
  REQUIRE(graft::models::first_trained_block(set, setup.model.sites()) == first);
  const double ratio = setup.measured_over_predicted(bf16, first);
  CHECK(ratio > 0.9);
  CHECK(ratio < 1.1);
}

TEST_CASE("Blocks below all that is trained keep nothing, recomputed or not") {
  const auto peak = [](Index recomputed) {
    return Setup(64, 8, recomputed, 2, 128, {Index{7}}).peak(false);
  };
  const double kept = peak(0);
  CHECK(peak(3) < 1.05 * kept);
  CHECK(peak(8) < 1.05 * kept);
}
