#pragma once

#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "graft/text/masked.hpp"
#include "graft/train/dataset.hpp"

namespace graft::inline v0_1 {

/// Rows for a masked language model, whose labels say which tokens may be hidden; padded with
/// `pad_id` to the longest of a batch. A training step hides tokens by its own seed; an evaluation
/// hides the same tokens of a row each time, by `seed` and the number of the row.
template <std::floating_point T>
BasicDataset<T> masked_dataset(std::vector<text::Example> examples, const text::Masking& masking,
                               std::int32_t pad_id, std::uint64_t seed) {
  const auto shared = std::make_shared<const std::vector<text::Example>>(std::move(examples));
  const auto make = [shared, masking, pad_id](std::span<const Index> picked, const auto& seed_of) {
    std::vector<text::Example> rows;
    for (std::size_t i = 0; i < picked.size(); ++i) {
      rows.push_back(shared->at(static_cast<std::size_t>(picked[i])));
      text::mask_tokens(rows.back(), masking, seed_of(i));
    }
    std::vector<Index> all(rows.size());
    std::iota(all.begin(), all.end(), Index{0});
    return model_batch<T>(text::make_batch(rows, all, {.pad_id = std::max(pad_id, 0)}));
  };
  BasicDataset<T> data;
  data.rows = std::ssize(*shared);
  data.fingerprint = detail::fingerprint_of(*shared);
  data.batch = [make, seed](std::span<const Index> picked) {
    return make(picked, [&](std::size_t i) {
      return text::detail::mix_seeds(seed, static_cast<std::uint64_t>(picked[i]));
    });
  };
  data.training_batch = [make](std::span<const Index> picked, std::uint64_t step_seed) {
    return make(picked, [&](std::size_t i) { return text::detail::mix_seeds(step_seed, i); });
  };
  return data;
}

}  // namespace graft::inline v0_1
