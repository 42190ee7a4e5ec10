#pragma once

#include <utility>

#include "graft/adapters/root.hpp"
#include "graft/autograd/ops/effective_linear.hpp"

namespace graft::inline v0_1::detail {

/// y = x W'ᵀ + b with W' = build(tape) in place of the frozen weight. With other adapters below,
/// these see x and the difference W' − W is added. `build` must be pure and own what it uses.
template <Linear L, class Build>
BasicVar<ScalarOf<L>> effective_weight(const L& base, const BasicVar<ScalarOf<L>>& x, Build build) {
  using T = ScalarOf<L>;
  const auto& root = root_of(base);
  if (!has_adapters_below(base)) return effective_linear(x, bias_of(root), std::move(build));
  return add(linear(base, x), effective_linear(x, BasicTensor<T>{},
                                               [&root, build = std::move(build)](BasicTape<T>& t) {
                                                 return sub(build(t), t.constant(weight_of(root)));
                                               }));
}

}  // namespace graft::inline v0_1::detail
