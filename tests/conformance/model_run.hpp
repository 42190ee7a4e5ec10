#pragma once

#include <functional>

#include "graft/compose/adapter_model.hpp"
#include "graft/models/model.hpp"
#include "support.hpp"

namespace conformance {

/// What a case of a method on a tiny model needs beside the common run.
struct MethodModelSteps {
  /// Told the adapters once they are loaded.
  std::function<void(graft::AdapterModel&)> prepare = {};
  /// `loss` is what a training step minimises, auxiliary losses and further passes included, and
  /// everything runs in the mode of the case.
  bool objective = false;
  /// Looks at the adapters after the forward pass of the loss.
  std::function<void(Checker&, graft::AdapterModel&)> inspect = {};
  /// Compares what else the case holds.
  std::function<void(Checker&, const graft::models::Model&, graft::AdapterModel&,
                     const graft::models::Batch&)>
      after = {};
};
Result run_method_model_case(const Case& c, const MethodModelSteps& steps);

}  // namespace conformance
