#pragma once

#include <optional>
#include <string>

#include "graft/train/dataset.hpp"
#include "session.hpp"

namespace cli {

/// What merging changes in a model's output.
class MergeCheck {
 public:
  /// Compares the outputs on the first rows of a dataset: largest difference over largest value.
  void run(const graft::models::Model& model, graft::AdapterModel& adapters,
           const graft::Dataset& rows, graft::Index batch_size);
  void add_to(graft::io::Json& result) const;

 private:
  std::optional<double> difference_;
  std::string refused_;
};

}  // namespace cli
