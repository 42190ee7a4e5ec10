// Family orthogonal: OFT. The wanted layer sees its inputs turned: pairs of neighbours by a small
// angle. Rotations keep the angles between the rows of the weight.
#include "graft/adapters/orthogonal/oft.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  auto weight = frozen.dense_weight().clone();
  const float c = std::cos(0.3F), s = std::sin(0.3F);
  for (graft::Index o = 0; o < tiny::kOut; ++o)
    for (graft::Index i = 0; i < tiny::kIn; i += 2) {
      const float p = weight(o, i), q = weight(o, i + 1);
      weight(o, i) = c * p - s * q;
      weight(o, i + 1) = s * p + c * q;
    }
  const graft::DenseLinear teacher(weight, frozen.bias());

  const graft::Adapted layer(frozen,
                             graft::OFT({.block_size = 8, .use_cayley_neumann = false}, frozen));
  const bool learned = tiny::learns(
      "OFT", layer.parameters(), [&](const graft::Var& x) { return layer(x); },
      [&](const graft::Var& x) { return graft::linear(teacher, x); }, 0.05);
  return learned && tiny::merge_error(layer) < 1e-4 ? 0 : 1;
}
