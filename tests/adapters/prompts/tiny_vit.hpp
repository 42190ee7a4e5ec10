#pragma once

#include "adapters/prompts/tiny_llama.hpp"
#include "graft/models/vit.hpp"

/// A random vision transformer, two channels, four patches, and what is checked of methods on it.
namespace prompts {

inline graft::models::VitConfig vit() {
  graft::models::VitConfig c;
  c.image_size = 6;
  c.patch_size = 3;
  c.channels = 2;
  c.hidden_size = kWidth;
  c.intermediate_size = 14;
  c.layers = kLayers;
  c.heads = 4;
  c.classes = 3;
  return c;
}

template <class T>
struct ImageSetup {
  // A vision transformer has biases everywhere.
  graft::models::BasicVit<T> model{vit(), RandomWeights<T>({.biases = true})};
  graft::BasicAdapterModel<T> adapters{model.sites(), graft::all_methods<T>()};

  template <class Config>
  explicit ImageSetup(const Config& config) {
    adapters.add("p", config, 1);
  }
  graft::AdapterSet<T>& set() { return adapters.at("p"); }
  static graft::models::BasicBatch<T> batch() {
    graft::models::BasicBatch<T> b;
    b.batch = 2;
    b.pixels = checks::random_tensor<T>({2, 2, 6, 6}, 3);
    b.labels = {2, 0};
    return b;
  }
  graft::BasicTensor<T> logits(std::vector<std::string> rows = {}) const {
    auto b = batch();
    b.row_adapters = std::move(rows);
    graft::BasicTape<T> tape({.gradients = false, .training = false});
    return model.logits(tape, b).value().clone();
  }
  void randomize(double scale = 0.4) {
    unsigned seed = 11;
    for (const auto& p : set().parameters())
      p.assign(checks::random_tensor<T>(p.shape(), seed++, scale));
  }
  double gradient_error() {
    randomize();
    return graft::gradient_check(
               [&](graft::BasicTape<T>& tape) { return model.loss(tape, batch()); },
               set().parameters())
        .relative_error;
  }
  std::vector<std::string> keys() {
    std::vector<std::string> list;
    for (const auto& [key, tensor] : set().tensors()) list.push_back(key);
    return list;
  }
};

}  // namespace prompts
