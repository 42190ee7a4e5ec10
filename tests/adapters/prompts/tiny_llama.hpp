#pragma once

#include <filesystem>
#include <utility>
#include <vector>

#include "adapters/random_weights.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/methods.hpp"
#include "graft/models/llama.hpp"
#include "graft/train/generate.hpp"

/// A random LLaMA with grouped heads, and what is checked of every method of virtual tokens on it.
namespace prompts {

using graft::Index;

constexpr Index kVocabulary = 23, kWidth = 12, kLayers = 2, kKeyWidth = 6;

using checks::RandomWeights;

inline graft::models::LlamaConfig llama() {
  graft::models::LlamaConfig c;
  c.vocabulary = kVocabulary;
  c.hidden_size = kWidth;
  c.intermediate_size = 14;
  c.layers = kLayers;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 3;
  c.rope.dim = 2;
  c.max_positions = 40;
  return c;
}

template <class T>
struct Setup {
  graft::models::BasicLlama<T> model{llama(), RandomWeights<T>()};
  graft::BasicAdapterModel<T> adapters{model.sites(), graft::all_methods<T>()};

  Setup() = default;
  template <class Config>
  explicit Setup(const Config& config) {
    adapters.add("p", config, 1);
  }
  graft::AdapterSet<T>& set() { return adapters.at("p"); }
  void randomize(double scale = 0.4) {
    unsigned seed = 11;
    for (const auto& p : set().parameters())
      p.assign(checks::random_tensor<T>(p.shape(), seed++, scale));
  }

  static graft::models::BasicBatch<T> batch(bool padded = true) {
    graft::models::BasicBatch<T> b;
    b.batch = 2;
    b.seq_len = 4;
    b.ids = {1, 5, 9, 0, 7, 7, 2, 3};
    if (padded) b.mask = {1, 1, 1, 0, 1, 1, 1, 1};
    b.labels = {1, 5, 9, -100, -100, 7, 2, 3};
    b.task_ids = {1, 0};
    return b;
  }
  graft::BasicTensor<T> logits(const std::vector<std::int32_t>& ids) const {
    graft::models::BasicBatch<T> b;
    b.batch = 1;
    b.seq_len = static_cast<Index>(ids.size());
    b.ids = ids;
    b.task_ids = {0};
    graft::BasicTape<T> tape({.gradients = false, .training = false});
    return model.logits(tape, b).value().clone();
  }
  T loss() const {
    graft::BasicTape<T> tape({.gradients = false, .training = false});
    return model.loss(tape, batch()).item();
  }
  /// Worst relative error of the gradients of the loss, at random values.
  double gradient_error() {
    randomize();
    return graft::gradient_check(
               [&](graft::BasicTape<T>& tape) { return model.loss(tape, batch()); },
               set().parameters())
        .relative_error;
  }
  /// Token by token with a cache, generation gives what whole forward passes give.
  void expect_cached_generation() {
    randomize();
    std::vector<std::int32_t> all{3, 16, 18};
    const auto ids = graft::generate(model, all, {.max_tokens = 8, .temperature = 0});
    REQUIRE(ids.size() == 8);
    for (const auto id : ids) {
      const auto whole = logits(all);
      const T* last = whole.data() + (whole.size() - whole.cols());
      CHECK(std::max_element(last, last + whole.cols()) - last == id);
      all.push_back(id);
    }
  }
  /// Saved and loaded again, the adapter gives the same logits; returns the keys in its file.
  std::vector<std::string> expect_same_after_saving(bool whole = false) {
    randomize();
    const auto folder = std::filesystem::temp_directory_path() /
                        graft::concat("graft_prompts_", std::random_device{}());
    adapters.save("p", folder, whole);
    const auto before = logits({4, 2, 8});
    graft::LoadReport report;
    adapters.load("again", folder, true, &report);
    CHECK(report.ok());
    CHECK(adapters.active() == std::vector<std::string>{"again"});
    CHECK(checks::relative_error(logits({4, 2, 8}), before) < 1e-5);
    std::vector<std::string> keys;
    const auto file = graft::io::SafetensorsFile::open(folder / "adapter_model.safetensors");
    for (const auto& view : file.tensors()) keys.push_back(view.name);
    std::filesystem::remove_all(folder);
    return keys;
  }
};

}  // namespace prompts
