#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/autograd/ops/elementwise.hpp"

namespace graft::inline v0_1 {

/// Trained biases in place of the frozen one of a layer, by the adapters that they belong to.
template <std::floating_point T>
class SiteBiases {
 public:
  /// Of the active adapters; empty: the frozen bias.
  BasicParameter<T> active;
  std::vector<std::pair<std::string, BasicParameter<T>>> list;

  BasicParameter<T> of(const std::string& name) const {
    for (const auto& [owner, bias] : list)
      if (owner == name) return bias;
    return {};
  }
  void activate(const std::vector<std::string>& names) {
    active = {};
    for (const auto& name : names)
      if (auto bias = of(name)) active = bias;
  }
  /// What this bias has more than the frozen one.
  static BasicVar<T> change(BasicTape<T>& tape, const BasicParameter<T>& bias,
                            const BasicTensor<T>& frozen) {
    const auto own = tape.parameter(bias);
    return frozen ? sub(own, tape.constant(frozen)) : own;
  }
  /// y, which has the frozen bias in it, with this one.
  static BasicVar<T> put(const BasicVar<T>& y, const BasicParameter<T>& bias,
                         const BasicTensor<T>& frozen) {
    return bias ? add(y, change(y.tape(), bias, frozen)) : y;
  }
};

}  // namespace graft::inline v0_1
