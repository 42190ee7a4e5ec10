#include "merge_check.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace cli {

using graft::Index;

void MergeCheck::run(const graft::models::Model& model, graft::AdapterModel& adapters,
                     const graft::Dataset& rows, Index batch_size) {
  std::vector<Index> first(static_cast<std::size_t>(std::min(rows.rows, batch_size)));
  if (first.empty()) return;
  std::iota(first.begin(), first.end(), Index{0});
  const auto batch = rows.batch(first);
  const auto logits = [&] {
    graft::Tape tape({.gradients = false, .training = false});
    return model.logits(tape, batch).value().clone();
  };
  const auto unmerged = logits();
  try {
    adapters.merge({.dequantize = true});
  } catch (const graft::ValueError& error) {
    refused_ = error.what();
    return;
  }
  const auto merged = logits();
  adapters.unmerge();
  double difference = 0, largest = 0;
  for (Index i = 0; i < unmerged.size(); ++i) {
    const auto value = static_cast<double>(unmerged[i]);
    largest = std::max(largest, std::abs(value));
    difference = std::max(difference, std::abs(value - static_cast<double>(merged[i])));
  }
  difference_ = difference / std::max(largest, 1e-30);
}

void MergeCheck::add_to(graft::io::Json& result) const {
  if (difference_) result["merge_max_rel"] = *difference_;
  if (!refused_.empty()) result["merge_refused"] = refused_;
}

}  // namespace cli
