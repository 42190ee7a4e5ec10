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

/// Weights with biases: a vision transformer has them everywhere.
template <class T>
class BiasedWeights final : public graft::models::BasicWeights<T> {
 public:
  bool has(const std::string&) const override { return true; }
  graft::BasicTensor<T> tensor(const std::string& name, const graft::Shape& shape) const override {
    return plain_.tensor(name, shape);
  }
  graft::BasicAnyLinear<T> linear(const std::string& name, Index out, Index in) const override {
    return graft::BasicDenseLinear<T>(tensor(name + ".weight", {out, in}),
                                      tensor(name + ".bias", {out}));
  }
  graft::BasicEmbeddingTable<T> embedding(const std::string& name, Index rows,
                                          Index dim) const override {
    return plain_.embedding(name, rows, dim);
  }

 private:
  RandomWeights<T> plain_;
};

template <class T>
struct ImageSetup {
  graft::models::BasicVit<T> model{vit(), BiasedWeights<T>()};
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
