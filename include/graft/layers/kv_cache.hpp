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
                                                   const BasicTensor<T>& v);
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
                             bool last = false);

  std::vector<Layer> layers_;
  Index length_ = 0;
};

using KvCache = BasicKvCache<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/kv_cache_impl.hpp"
#endif
