// Family low_rank: DoRA. The change of the weight has rank two, which LoRA's factors can hold, and
// another length of every row, which DoRA's magnitudes can.
#include "graft/adapters/low_rank/dora.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  auto weight = frozen.dense_weight().clone();
  const auto u = tiny::normal({tiny::kOut, 2}, 3, 0.1), v = tiny::normal({2, tiny::kIn}, 4, 0.5);
  for (graft::Index o = 0; o < tiny::kOut; ++o)
    for (graft::Index i = 0; i < tiny::kIn; ++i)
      weight(o, i) = 1.2F * (weight(o, i) + u(o, 0) * v(0, i) + u(o, 1) * v(1, i));
  const graft::DenseLinear teacher(weight, frozen.bias());

  const graft::Adapted layer(frozen,
                             graft::DoRA({.rank = 4, .alpha = 4, .use_dora = true}, frozen));
  const bool learned = tiny::learns(
      "DoRA", layer.parameters(), [&](const graft::Var& x) { return layer(x); },
      [&](const graft::Var& x) { return graft::linear(teacher, x); }, 0.05);
  return learned && tiny::merge_error(layer) < 1e-4 ? 0 : 1;
}
