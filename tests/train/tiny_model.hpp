#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/base/rng.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/methods.hpp"
#include "graft/models/llama.hpp"
#include "graft/train/dataset.hpp"

/// A random LLaMA of two layers in memory, and sentences for it that can be learnt.
namespace tiny {

using graft::Index;

class RandomWeights final : public graft::models::BasicWeights<float> {
 public:
  bool has(const std::string& name) const override { return !name.ends_with(".bias"); }
  graft::Tensor tensor(const std::string& name, const graft::Shape& shape) const override {
    if (name.find("norm") != std::string::npos) return graft::Tensor::ones(shape);
    std::uint64_t seed = 5;
    for (const char c : name) seed = seed * 31 + static_cast<unsigned char>(c);
    graft::TorchGenerator generator(seed);
    auto t = graft::Tensor::empty(shape);
    generator.normal(t.data(), t.size(), 0.0, 0.3);
    return t;
  }
  graft::BasicAnyLinear<float> linear(const std::string& name, Index out, Index in) const override {
    return graft::DenseLinear(tensor(name + ".weight", {out, in}));
  }
  graft::EmbeddingTable embedding(const std::string& name, Index rows, Index dim) const override {
    return graft::EmbeddingTable(tensor(name + ".weight", {rows, dim}));
  }
};

inline graft::models::LlamaConfig config() {
  graft::models::LlamaConfig c;
  c.vocabulary = 37;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.layers = 2;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 4;
  c.max_positions = 48;
  c.rope.dim = 4;
  return c;
}

/// Model and the adapters on it.
struct Setup {
  graft::models::Llama model{config(), RandomWeights()};
  graft::AdapterModel adapters{model.sites(), graft::all_methods<float>()};

  explicit Setup(graft::LoRAConfig lora = {.rank = 4, .alpha = 8, .target_modules = "all-linear"}) {
    adapters.add("default", std::move(lora), 1);
  }
};

/// Sequences of different lengths in which each token follows from the one before.
inline std::vector<graft::text::Example> examples(int count) {
  std::vector<graft::text::Example> list;
  for (int i = 0; i < count; ++i) {
    graft::text::Example e;
    std::int32_t id = i % 31;
    for (int t = 0; t < 6 + i % 5; ++t) {
      e.ids.push_back(id);
      e.labels.push_back(id);
      id = (3 * id + 7) % 37;
    }
    list.push_back(std::move(e));
  }
  return list;
}

inline graft::Dataset data(int count) { return graft::text_dataset<float>(examples(count), 0); }

/// All trained values, one after the other.
inline std::vector<float> values(const graft::AdapterModel& adapters) {
  std::vector<float> all;
  for (const auto& p : adapters.parameters())
    all.insert(all.end(), p.value().begin(), p.value().end());
  return all;
}

}  // namespace tiny
