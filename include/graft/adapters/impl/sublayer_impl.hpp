#pragma once

#include <algorithm>
#include <cmath>

#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1::detail {

GRAFT_KERNEL bool placed_at(const std::vector<std::string>& placement, HiddenRole role) {
  const auto has = [&](const char* name) {
    return std::find(placement.begin(), placement.end(), name) != placement.end();
  };
  if (role == HiddenRole::attention || role == HiddenRole::cross_attention) return has("attention");
  return role == HiddenRole::feed_forward && (has("feed_forward") || has("ffn"));
}

GRAFT_KERNEL void require_placement(std::string_view method,
                                    const std::vector<std::string>& placement) {
  if (placement.empty()) throw ValueError(concat(method, ": no placement"));
  for (const auto& name : placement)
    if (name != "attention" && name != "feed_forward" && name != "ffn")
      throw ValueError(
          concat(method, ": placement '", name, "', expected \"attention\" or \"feed_forward\""));
}

template <std::floating_point T>
std::vector<AdapterTensor<T>> below(const std::string& prefix,
                                    std::vector<AdapterTensor<T>> tensors) {
  for (auto& t : tensors)
    if (t.scope == AdapterTensor<T>::Scope::site) t.name = prefix + t.name;
  return tensors;
}

template <std::floating_point T>
std::vector<BasicLinearSite<T>*> last_feed_forward_layers(const BasicSiteTable<T>& table) {
  std::vector<BasicLinearSite<T>*> sites;
  for (const auto* hidden : table.hidden) {
    if (hidden->role() != HiddenRole::feed_forward) continue;
    for (auto* site : table.linear)
      if (site->path() == concat(hidden->path(), ".", hidden->output_name())) sites.push_back(site);
  }
  return sites;
}

template <std::floating_point T>
BasicParameter<T> linear_default(InitContext<T>& context, const Shape& shape, Index in) {
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  return fresh<T>(context, shape, [bound](TorchGenerator& g, BasicTensor<T>& t) {
    g.uniform(t.data(), t.size(), -bound, bound);
  });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                       \
  template std::vector<AdapterTensor<T>> below(const std::string&, std::vector<AdapterTensor<T>>); \
  template std::vector<BasicLinearSite<T>*> last_feed_forward_layers(const BasicSiteTable<T>&);    \
  template BasicParameter<T> linear_default(InitContext<T>&, const Shape&, Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1::detail
