#pragma once

#include <string>
#include <utility>

#include "graft/adapters/adapter.hpp"

namespace graft::inline v0_1::detail {

/// Place of a site among those of its type (the last part of its path): its number and how many
/// there are.
template <std::floating_point T>
std::pair<Index, Index> place_in_type(const LinearSiteInfo<T>& site) {
  Index number = 0, count = 0;
  for (const auto& [path, shape] : site.all_sites) {
    const auto dot = path.rfind('.');
    if ((dot == std::string::npos ? path : path.substr(dot + 1)) != site.name()) continue;
    if (path == site.path) number = count;
    ++count;
  }
  return {number, std::max<Index>(1, count)};
}

/// A tensor that all sites of a type share, by its name below it.
template <std::floating_point T>
AdapterTensor<T> type_tensor(const std::string& type, const std::string& name,
                             BasicParameter<T> parameter) {
  AdapterTensor<T> tensor;
  tensor.name = "model.shared." + type + "." + name;
  tensor.parameter = std::move(parameter);
  tensor.scope = AdapterTensor<T>::Scope::model;
  return tensor;
}

}  // namespace graft::inline v0_1::detail
