#pragma once

#include "graft/adapters/adapter.hpp"

namespace graft::inline v0_1::detail {

template <std::floating_point T>
AdapterTensor<T> named(std::string name, const BasicParameter<T>& parameter) {
  AdapterTensor<T> t;
  t.name = std::move(name);
  t.parameter = parameter;
  return t;
}

template <std::floating_point T>
AdapterTensor<T> named(std::string name, std::shared_ptr<IndexTensor> index) {
  AdapterTensor<T> t;
  t.name = std::move(name);
  t.index = std::move(index);
  return t;
}

template <std::floating_point T>
AdapterTensor<T> model_tensor(const std::string& name, const BasicParameter<T>& parameter) {
  auto t = named("model." + name, parameter);
  t.scope = AdapterTensor<T>::Scope::model;
  return t;
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
Index trainable_elements(const std::vector<AdapterTensor<T>>& tensors) {
  std::vector<const void*> seen;
  Index count = 0;
  for (const auto& t : tensors) {
    if (!t.parameter || !t.parameter.trainable()) continue;
    if (std::find(seen.begin(), seen.end(), t.parameter.id()) != seen.end()) continue;
    seen.push_back(t.parameter.id());
    count += t.parameter.size();
  }
  return count;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                    \
  template AdapterTensor<T> detail::named(std::string, const BasicParameter<T>&);               \
  template AdapterTensor<T> detail::named(std::string, std::shared_ptr<IndexTensor>);           \
  template AdapterTensor<T> detail::model_tensor(const std::string&, const BasicParameter<T>&); \
  template Index trainable_elements(const std::vector<AdapterTensor<T>>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
