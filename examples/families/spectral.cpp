// Family spectral: SVFT. The wanted layer has the singular vectors of the frozen one and other
// singular values; one number for each of them is enough.
#include "graft/adapters/spectral/svft.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  const auto d = graft::svd(frozen.dense_weight());
  auto weight = frozen.dense_weight().clone();
  for (graft::Index o = 0; o < tiny::kOut; ++o)
    for (graft::Index i = 0; i < tiny::kIn; ++i)
      for (graft::Index j = 0; j < d.s.size(); j += 3) weight(o, i) += 0.3F * d.u(o, j) * d.v(i, j);
  const graft::DenseLinear teacher(weight, frozen.bias());

  const graft::Adapted layer(frozen, graft::SVFT({}, frozen));
  const bool learned = tiny::learns(
      "SVFT", layer.parameters(), [&](const graft::Var& x) { return layer(x); },
      [&](const graft::Var& x) { return graft::linear(teacher, x); }, 0.01);
  return learned && tiny::merge_error(layer) < 1e-4 ? 0 : 1;
}
