#pragma once

#include <string>

#include "adapters/method_checks.hpp"
#include "graft/models/weights.hpp"

namespace checks {

struct RandomWeightsOptions {
  double scale = 0.5;
  bool biases = false;        ///< of linear layers too
  bool random_norms = false;  ///< else those of norms are ones
};

/// Weights of a model that follow from their names.
template <class T>
class RandomWeights final : public graft::models::BasicWeights<T> {
 public:
  explicit RandomWeights(RandomWeightsOptions options = {}) : options_(options) {}
  bool has(const std::string& name) const override {
    return options_.biases || !name.ends_with(".bias");
  }
  graft::BasicTensor<T> tensor(const std::string& name, const Shape& shape) const override {
    const bool norm = name.find("norm") != std::string::npos;
    if (norm && !options_.random_norms) return graft::BasicTensor<T>::ones(shape);
    unsigned seed = 5;
    for (const char c : name) seed = seed * 31 + static_cast<unsigned char>(c);
    auto t = random_tensor<T>(shape, seed, options_.scale);
    if (norm)
      for (T& v : t) v += 1;
    return t;
  }
  graft::BasicAnyLinear<T> linear(const std::string& name, Index out, Index in) const override {
    return graft::BasicDenseLinear<T>(
        tensor(name + ".weight", {out, in}),
        options_.biases ? tensor(name + ".bias", {out}) : graft::BasicTensor<T>{});
  }
  graft::BasicEmbeddingTable<T> embedding(const std::string& name, Index rows,
                                          Index dim) const override {
    return graft::BasicEmbeddingTable<T>(tensor(name + ".weight", {rows, dim}));
  }

 private:
  RandomWeightsOptions options_;
};

}  // namespace checks
