// Family kronecker: LoKr. The change of the weight is a Kronecker product of two small matrices.
#include "graft/adapters/kronecker/lokr.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  auto weight = frozen.dense_weight().clone();
  const auto a = tiny::normal({8, 8}, 3, 0.3), b = tiny::normal({8, 8}, 4, 0.3);
  for (graft::Index o = 0; o < tiny::kOut; ++o)
    for (graft::Index i = 0; i < tiny::kIn; ++i) weight(o, i) += a(o / 8, i / 8) * b(o % 8, i % 8);
  const graft::DenseLinear teacher(weight, frozen.bias());

  const graft::Adapted layer(frozen, graft::LoKr({.rank = 8, .alpha = 8}, frozen));
  const bool learned = tiny::learns(
      "LoKr", layer.parameters(), [&](const graft::Var& x) { return layer(x); },
      [&](const graft::Var& x) { return graft::linear(teacher, x); }, 0.05);
  return learned && tiny::merge_error(layer) < 1e-4 ? 0 : 1;
}
