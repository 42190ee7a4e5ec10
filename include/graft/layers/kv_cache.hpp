#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "graft/autograd/tape.hpp"

namespace graft::inline v0_1 {

/// Keys and values of the tokens that a model has already seen, for generation token by token. One
/// sequence.
template <std::floating_point T>
class BasicKvCache {
 public:
  virtual ~BasicKvCache() = default;
  /// Tokens seen so far.
  Index length() const { return length_; }
  void advance(Index tokens) { length_ += tokens; }
  /// Ids of these tokens, virtual ones left out.
  std::vector<std::int32_t> ids;
  virtual void clear() {
    ids.clear();
    layers_.clear();
    length_ = 0;
  }
  /// Appends rows k, v [tokens, width] of a layer and returns all rows so far.
  std::pair<BasicTensor<T>, BasicTensor<T>> append(Index layer, const BasicTensor<T>& k,
                                                   const BasicTensor<T>& v) {
    if (static_cast<Index>(layers_.size()) <= layer)
      layers_.resize(static_cast<std::size_t>(layer) + 1);
    auto& entry = layers_[static_cast<std::size_t>(layer)];
    return {grow(entry.k, entry.rows, k), grow(entry.v, entry.rows, v, true)};
  }
  /// The same for values of a tape; without gradients, unless a cache of another kind keeps them.
  virtual std::pair<BasicVar<T>, BasicVar<T>> extend(Index layer, const BasicVar<T>& k,
                                                     const BasicVar<T>& v) {
    const auto [all_k, all_v] = append(layer, k.value(), v.value());
    return {k.tape().constant(all_k), k.tape().constant(all_v)};
  }

 private:
  struct Layer {
    BasicTensor<T> k, v;
    Index rows = 0;
  };
  static BasicTensor<T> grow(BasicTensor<T>& store, Index& rows, const BasicTensor<T>& added,
                             bool last = false) {
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

  std::vector<Layer> layers_;
  Index length_ = 0;
};

using KvCache = BasicKvCache<float>;

}  // namespace graft::inline v0_1
