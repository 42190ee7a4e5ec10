#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "graft/compose/adapter_model.hpp"
#include "graft/models/model.hpp"

namespace graft::inline v0_1 {

/// A loss, a gradient or a parameter that is not a finite number.
class NotFiniteError : public Error {
 public:
  using Error::Error;
};

/// True if a parameter has a value that no parameter may have: NaN or +∞. A logit of −∞ is a choice
/// that is never made (VB-LoRA's of files with the chosen ones alone).
template <std::floating_point T>
bool has_fault(const BasicTensor<T>& values) {
  return std::any_of(values.begin(), values.end(),
                     [](T v) { return !(v < std::numeric_limits<T>::infinity()); });
}

/// Words on the first tensor of the active adapters (values, then gradients) or of the frozen model
/// that is not finite; empty: none of those that are adapted or could be. Quantised weights are
/// decoded for it.
template <std::floating_point T>
std::string first_not_finite(const models::BasicModel<T>& model,
                             const BasicAdapterModel<T>& adapters) {
  const auto bad = [](const BasicTensor<T>& t) {
    return t && std::any_of(t.begin(), t.end(), [](T v) { return !std::isfinite(v); });
  };
  for (const auto& name : adapters.active()) {
    const auto tensors = adapters.at(name).tensors();
    for (const auto& [key, tensor] : tensors)
      if (tensor.parameter && has_fault(tensor.parameter.value()))
        return concat("first tensor that is not finite: ", key);
    for (const auto& [key, tensor] : tensors)
      if (tensor.parameter && bad(tensor.parameter.grad()))
        return concat("first gradient that is not finite: of ", key);
  }
  const auto frozen = [](const std::string& path) {
    return concat("first tensor that is not finite: frozen ", path, ".weight");
  };
  const auto& sites = model.sites();
  for (const auto* site : sites.embedding)
    if (bad(site->table().dense())) return frozen(site->path());
  for (const auto* site : sites.linear)
    if (bad(site->base().dense_weight()) || bad(site->base().bias())) return frozen(site->path());
  for (const auto* site : sites.norm)
    if (bad(site->norm().weight) || bad(site->norm().bias)) return frozen(site->path());
  return "";
}

}  // namespace graft::inline v0_1
