// Family selection: NeuroAda. Each output trains its k inputs of the largest weight and no others.
#include "graft/adapters/selection/neuroada.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  const graft::NeuroAdaConfig config{.k = 4};
  const graft::Adapted teacher(frozen, graft::NeuroAda(config, frozen));
  for (const auto& p : teacher.parameters()) p.assign(tiny::normal(p.shape(), 3, 0.2));

  const graft::Adapted layer(frozen, graft::NeuroAda(config, frozen));
  const bool learned = tiny::learns(
      "NeuroAda", layer.parameters(), [&](const graft::Var& x) { return layer(x); },
      [&](const graft::Var& x) { return teacher(x); }, 0.05);
  return learned && tiny::merge_error(layer) < 1e-4 ? 0 : 1;
}
