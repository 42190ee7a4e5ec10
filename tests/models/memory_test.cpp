#include "graft/models/memory.hpp"

#include <catch2/catch.hpp>

#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/optim/adamw.hpp"

using graft::Index;
using graft::MemoryPool;

TEST_CASE("The predicted memory of a step is what its tensors take at most") {
  const Index recomputed = GENERATE(0, 5, 11, 12);
  const bool bf16 = GENERATE(false, true);
  const Index vocabulary = GENERATE(64, 8192);
  CAPTURE(recomputed, bf16, vocabulary);
  graft::models::LlamaConfig config;
  config.vocabulary = vocabulary;
  config.hidden_size = 64;
  config.intermediate_size = 192;
  config.layers = 12;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.rope.dim = 16;
  graft::models::Llama model(
      config, graft::models::ZeroWeights<float>([](const std::string&) { return false; }));
  model.recomputed_blocks = recomputed;
  const auto base = MemoryPool::global().stats().bytes_in_use;
  graft::MethodRegistry<float> registry;
  registry.add(graft::MethodList<graft::LoRAMethod<float>>{});
  graft::AdapterModel adapters(model.sites(), registry);
  auto options = registry.at("LORA").defaults;
  options["r"] = Index{4};
  options["target_modules"] = graft::ConfigValue(std::string("all-linear"));
  graft::TorchGenerator generator(0);
  const auto& set = adapters.add("default", options, generator);
  graft::AdamW optimizer(adapters.parameters(), {.learning_rate = 1e-3});
  graft::models::Batch batch;
  batch.batch = 4;
  batch.seq_len = 256;
  for (Index i = 0; i < batch.batch * batch.seq_len; ++i)
    batch.ids.push_back(static_cast<std::int32_t>(i % 61));
  batch.labels.assign(batch.ids.begin(), batch.ids.end());
  for (int step = 0; step < 2; ++step) {
    MemoryPool::global().reset_peak();
    graft::Tape tape({.bf16_saved = bf16});
    tape.backward(model.loss(tape, batch));
    optimizer.step();
    optimizer.zero_grad();
  }
  const auto measured = static_cast<double>(MemoryPool::global().stats().peak_bytes_in_use - base);
  const double predicted = graft::models::step_bytes(config, {.batch = 4,
                                                              .tokens = 256,
                                                              .trained = set.trainable_elements(),
                                                              .rank = 7 * 4,
                                                              .recomputed_blocks = recomputed,
                                                              .bf16_saved = bf16});
  CHECK(measured / predicted > 0.9);
  CHECK(measured / predicted < 1.1);
}

TEST_CASE("Blocks below all that is trained keep nothing, recomputed or not") {
  const auto peak = [](Index recomputed) {
    graft::models::LlamaConfig config;
    config.vocabulary = 64;
    config.hidden_size = 64;
    config.intermediate_size = 192;
    config.layers = 8;
    config.heads = 4;
    config.kv_heads = 2;
    config.head_dim = 16;
    config.rope.dim = 16;
    graft::models::Llama model(
        config, graft::models::ZeroWeights<float>([](const std::string&) { return false; }));
    model.recomputed_blocks = recomputed;
    const auto base = MemoryPool::global().stats().bytes_in_use;
    graft::MethodRegistry<float> registry;
    registry.add(graft::MethodList<graft::LoRAMethod<float>>{});
    graft::AdapterModel adapters(model.sites(), registry);
    auto options = registry.at("LORA").defaults;
    options["target_modules"] = graft::ConfigValue(std::string("all-linear"));
    options["layers_to_transform"] = graft::ConfigValue(graft::ConfigValue::List{Index{7}});
    graft::TorchGenerator generator(0);
    adapters.add("default", options, generator);
    graft::models::Batch batch;
    batch.batch = 2;
    batch.seq_len = 128;
    for (Index i = 0; i < 256; ++i) batch.ids.push_back(static_cast<std::int32_t>(i % 61));
    batch.labels.assign(batch.ids.begin(), batch.ids.end());
    MemoryPool::global().reset_peak();
    graft::Tape tape;
    tape.backward(model.loss(tape, batch));
    return static_cast<double>(MemoryPool::global().stats().peak_bytes_in_use - base);
  };
  const double kept = peak(0);
  CHECK(peak(3) < 1.05 * kept);
  CHECK(peak(8) < 1.05 * kept);
}
