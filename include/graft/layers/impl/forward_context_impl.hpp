#pragma once

#include <utility>

#include "graft/layers/forward_context.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL ForwardContext ForwardContext::of_rows(const std::vector<Index>& rows,
                                                    std::string adapter) const {
  ForwardContext part;
  part.only = std::move(adapter);
  part.batch = static_cast<Index>(rows.size());
  part.seq_len = seq_len;
  const auto take = [&](const auto& from, auto& to) {
    const Index width = static_cast<Index>(from.size()) / batch;
    for (const Index r : rows)
      to.insert(to.end(), from.begin() + r * width, from.begin() + (r + 1) * width);
  };
  take(ids, part.ids);
  take(past_ids, part.past_ids);
  take(token_mask, part.token_mask);
  take(task_ids, part.task_ids);
  take(modality, part.modality);
  take(labels, part.labels);
  take(prompt_lengths, part.prompt_lengths);
  take(instruction_mask, part.instruction_mask);
  take(visual, part.visual);
  part.visual_width = visual_width;
  return part;
}

}  // namespace graft::inline v0_1
