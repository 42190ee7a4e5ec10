#pragma once

#include <algorithm>

#include "graft/layers/sites/row_groups.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL RowGroups::RowGroups(const ForwardContext& context, const std::string& path,
                                  Index size) {
  const auto& names = context.row_adapters;
  if (std::ssize(names) != context.batch || context.batch < 1 || size % context.batch != 0)
    throw ShapeError(concat("site ", path, ": ", names.size(), " adapter names for a batch of ",
                            context.batch, " and an input of ", size, " rows"));
  for (Index i = 0; i < context.batch; ++i) {
    const auto& name = names[static_cast<std::size_t>(i)];
    auto it =
        std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.name == name; });
    if (it == groups.end()) it = groups.insert(groups.end(), {name, {}});
    it->rows.push_back(i);
  }
  position.resize(names.size());
  Index placed = 0;
  for (const auto& g : groups)
    for (const Index row : g.rows) position[static_cast<std::size_t>(row)] = placed++;
}

}  // namespace graft::inline v0_1
