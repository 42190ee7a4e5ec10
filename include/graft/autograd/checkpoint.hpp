#pragma once

#include <utility>

#include "graft/autograd/tape.hpp"

namespace graft::inline v0_1 {

/// f(x) without keeping what f computes inside: the backward pass runs f once more (Chen et al.
/// 2016). Random operations inside f repeat their pattern. f must be a pure function of x and of
/// parameters; it must own what it uses or outlive the backward pass. Costs one more forward pass
/// of f, keeps only x, and the result wants a gradient whatever f and x do. `leave_out_result`: the
/// tape of that pass says `result_unread`, so that f need not compute what only its result needs.
template <std::floating_point T, class F>
BasicVar<T> checkpoint(F f, const BasicVar<T>& x, bool leave_out_result = false) {
  auto& tape = x.tape();
  if (!tape.gradients()) return f(x);
  auto options = tape.options();
  options.result_unread = false;
  const auto calls = tape.random_calls();
  const auto context = tape.shared_context();
  BasicTensor<T> y;
  {
    options.gradients = false;
    BasicTape<T> inner(options);
    inner.set_random_calls(calls);
    inner.set_context(context);
    y = f(inner.constant(x.value())).value();
    tape.set_random_calls(inner.random_calls());
  }
  options.gradients = true;
  options.result_unread = leave_out_result;
  return tape.record(std::move(y), true,
                     [f = std::move(f), options, calls, context, kept = x.saved(),
                      gx = x.grad_ref()](const BasicTensor<T>& dy) {
                       BasicTape<T> inner(options);
                       inner.set_random_calls(calls);
                       inner.set_context(context);
                       const auto leaf = gx ? inner.leaf(kept.get()) : inner.constant(kept.get());
                       const auto again = f(leaf);
                       if (!again.requires_grad()) return;
                       inner.backward(again, dy);
                       if (const auto dx = leaf.grad()) gx.add(dx);
                     });
}

}  // namespace graft::inline v0_1
