#pragma once

#include <string>
#include <utility>
#include <vector>

#include "adapters/random_weights.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/methods.hpp"
#include "graft/models/llama.hpp"

/// A random LLaMA with one adapter on it.
namespace memory {

using graft::BasicTensor;
using graft::Index;

template <class T>
checks::RandomWeights<T> weights(bool biases = false) {
  return checks::RandomWeights<T>({.scale = 0.4, .biases = biases, .random_norms = true});
}

inline graft::models::LlamaConfig llama(Index layers = 3) {
  graft::models::LlamaConfig c;
  c.vocabulary = 19;
  c.hidden_size = 12;
  c.intermediate_size = 14;
  c.layers = layers;
  c.heads = 2;
  c.kv_heads = 1;
  c.head_dim = 4;
  c.rope.dim = 4;
  c.max_positions = 40;
  return c;
}

/// Gives trained tensors random values.
template <class T>
void randomize(const graft::AdapterSet<T>& set, double scale = 0.3) {
  unsigned seed = 11;
  for (const auto& p : set.parameters())
    p.assign(checks::random_tensor<T>(p.shape(), seed++, scale));
}

template <class T>
struct OnLlama {
  graft::models::BasicLlama<T> model;
  graft::BasicAdapterModel<T> adapters{model.sites(), graft::all_methods<T>()};

  template <class Config>
  explicit OnLlama(const Config& config, Index layers = 3) : model(llama(layers), weights<T>()) {
    adapters.add("a", config, 1);
  }
  graft::AdapterSet<T>& set() { return adapters.at("a"); }
  template <class Part>
  Part& part() {
    for (const auto& placed : set().parts())
      if (auto* found = dynamic_cast<Part*>(placed.part.get())) return *found;
    throw graft::ValueError("no such part");
  }
  static graft::models::BasicBatch<T> batch(std::vector<std::int32_t> ids, Index rows = 1) {
    graft::models::BasicBatch<T> b;
    b.batch = rows;
    b.seq_len = std::ssize(ids) / rows;
    b.labels.assign(ids.begin(), ids.end());
    b.ids = std::move(ids);
    return b;
  }
  static graft::models::BasicBatch<T> batch() {
    auto b = batch({1, 5, 9, 0, 7, 7, 2, 3}, 2);
    b.mask = {1, 1, 1, 0, 1, 1, 1, 1};
    b.labels[3] = -100;
    return b;
  }
  BasicTensor<T> logits(const graft::models::BasicBatch<T>& b, bool training = false) const {
    graft::BasicTape<T> tape({.gradients = false, .training = training});
    return model.logits(tape, b).value().clone();
  }
  double gradient_error() {
    return graft::gradient_check(
               [&](graft::BasicTape<T>& tape) { return model.loss(tape, batch()); },
               set().parameters(), 1e-5, 6, 1, 1e-4)
        .relative_error;
  }
  /// Gradients of the loss, one tensor after the other.
  std::vector<BasicTensor<T>> gradients() {
    for (const auto& p : set().parameters()) p.zero_grad();
    graft::BasicTape<T> tape({.seed = 3});
    tape.backward(model.loss(tape, batch()));
    std::vector<BasicTensor<T>> list;
    for (const auto& p : set().parameters())
      list.push_back(p.grad() ? p.grad().clone() : BasicTensor<T>::zeros(p.shape()));
    return list;
  }
};

}  // namespace memory
