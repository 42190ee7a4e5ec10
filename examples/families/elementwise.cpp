// Family elementwise: SSF. Every output has another scale and another shift; the merged layer has
// them in its weight and bias, exactly.
#include "graft/adapters/elementwise/ssf.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  auto weight = frozen.dense_weight().clone();
  const auto scale = tiny::normal({tiny::kOut}, 3, 0.3), shift = tiny::normal({tiny::kOut}, 4, 0.3);
  auto bias = shift.clone();
  for (graft::Index o = 0; o < tiny::kOut; ++o) {
    bias[o] += (1 + scale[o]) * frozen.bias()[o];
    for (graft::Index i = 0; i < tiny::kIn; ++i) weight(o, i) *= 1 + scale[o];
  }
  const graft::DenseLinear teacher(weight, bias);

  const graft::Adapted layer(frozen, graft::SSF({.exact_identity = true}, frozen));
  const bool learned = tiny::learns(
      "SSF", layer.parameters(), [&](const graft::Var& x) { return layer(x); },
      [&](const graft::Var& x) { return graft::linear(teacher, x); }, 0.05);
  return learned && tiny::merge_error(layer) < 1e-4 ? 0 : 1;
}
