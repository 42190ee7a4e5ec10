// Family bottleneck: a parallel adapter. What it adds bends: max(x, 0) of a few directions, which
// no merged weight could hold, and merging is refused.
#include "graft/adapters/bottleneck/parallel.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  const auto down = tiny::normal({2, tiny::kIn}, 3, 0.2), up = tiny::normal({tiny::kOut, 2}, 4);
  const auto teacher = [&](const graft::Var& x) {
    auto& tape = x.tape();
    const auto bent =
        relu(matmul(x, tape.constant(down), graft::Transpose::no, graft::Transpose::yes));
    return add(graft::linear(frozen, x),
               matmul(bent, tape.constant(up), graft::Transpose::no, graft::Transpose::yes));
  };

  graft::StandaloneInit<float> init(7);
  const graft::Adapted layer(
      frozen, graft::ParallelAdapterMethod<float>::make({.adapter_dim = 16, .scaling = 1},
                                                        tiny::kIn, tiny::kOut, init.context()));
  const bool learned = tiny::learns(
      "Parallel adapter", layer.parameters(), [&](const graft::Var& x) { return layer(x); },
      teacher, 0.1);
  bool refused = false;
  try {
    layer.merge();
  } catch (const graft::ValueError& error) {
    std::printf("%s\n", error.what());
    refused = true;
  }
  return learned && refused ? 0 : 1;
}
