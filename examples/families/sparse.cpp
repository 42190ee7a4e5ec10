// Family sparse: SHiRA. Some elements of the weight, at random places, are trained; the wanted
// change is at the same places here, so that it can be found whole.
#include "graft/adapters/sparse/shira.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  const graft::SHiRAConfig config{.rank = 4, .random_seed = 5};
  // The teacher is a SHiRA of its own with values that are not zero.
  const graft::Adapted teacher(frozen, graft::SHiRA(config, frozen));
  for (const auto& p : teacher.parameters()) p.assign(tiny::normal(p.shape(), 3, 0.2));

  const graft::Adapted layer(frozen, graft::SHiRA(config, frozen));
  const bool learned = tiny::learns(
      "SHiRA", layer.parameters(), [&](const graft::Var& x) { return layer(x); },
      [&](const graft::Var& x) { return teacher(x); }, 0.05);
  return learned && tiny::merge_error(layer) < 1e-4 ? 0 : 1;
}
