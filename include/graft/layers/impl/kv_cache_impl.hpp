#pragma once

#include "graft/layers/kv_cache.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
std::pair<BasicTensor<T>, BasicTensor<T>> BasicKvCache<T>::append(Index layer,
                                                                  const BasicTensor<T>& k,
                                                                  const BasicTensor<T>& v) {
  if (static_cast<Index>(layers_.size()) <= layer)
    layers_.resize(static_cast<std::size_t>(layer) + 1);
  auto& entry = layers_[static_cast<std::size_t>(layer)];
  return {grow(entry.k, entry.rows, k), grow(entry.v, entry.rows, v, true)};
}

template <std::floating_point T>
BasicTensor<T> BasicKvCache<T>::grow(BasicTensor<T>& store, Index& rows,
                                     const BasicTensor<T>& added, bool last) {
  const Index width = added.cols(), need = rows + added.rows();
  if (!store || store.rows() < need) {
    auto bigger = BasicTensor<T>::empty({std::max<Index>(64, 2 * need), width});
    if (store) std::copy_n(store.data(), rows * width, bigger.data());
    store = bigger;
  }
  std::copy_n(added.data(), added.size(), store.data() + rows * width);
  if (last) rows = need;
  return store.slice_rows(0, need);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicKvCache<float>;
template class BasicKvCache<double>;
#endif

}  // namespace graft::inline v0_1
