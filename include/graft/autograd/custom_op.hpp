#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

namespace detail {
template <class T, std::size_t>
using Repeated = const BasicTensor<T>&;

template <class Op, class T, class Numbers>
constexpr bool kIsOperation = false;
template <class Op, class T, std::size_t... N>
constexpr bool kIsOperation<Op, T, std::index_sequence<N...>> =
    requires(Op op, Repeated<T, N>... inputs, const BasicTensor<T>& dy) {
      { op.forward(inputs...) } -> std::same_as<BasicTensor<T>>;
      { op.backward(dy) } -> std::same_as<std::array<BasicTensor<T>, sizeof...(N)>>;
    };
}  // namespace detail

/// An operation of one's own with N inputs: `forward(inputs...)` gives the result and keeps in
/// members what `backward(dy)` needs; `backward` gives one gradient for each input, of the input's
/// shape, or an empty tensor where there is none (labels, masks).
template <class Op, class T, std::size_t N>
concept CustomOperation = detail::kIsOperation<Op, T, std::make_index_sequence<N>>;

/// y = op(inputs...), recorded on the tape of the inputs; `op` lives as long as the tape needs it.
/// If no input wants a gradient, `backward` is never called. Check an operation with
/// `gradient_check`.
/// @throws ValueError for inputs on different tapes; ShapeError, in the backward pass, for a
/// gradient with another number of elements than its input.
template <class Op, std::floating_point T, std::same_as<BasicVar<T>>... Rest>
  requires CustomOperation<Op, T, 1 + sizeof...(Rest)>
BasicVar<T> custom_op(Op op, const BasicVar<T>& first, const Rest&... rest) {
  auto& tape = detail::common_tape("custom_op", first, rest...);
  auto y = op.forward(first.value(), rest.value()...);
  const bool wants = (first.requires_grad() || ... || rest.requires_grad());
  const std::array<BasicGradRef<T>, 1 + sizeof...(Rest)> refs{first.grad_ref(), rest.grad_ref()...};
  return tape.record(std::move(y), wants,
                     [op = std::move(op), refs](const BasicTensor<T>& dy) mutable {
                       const auto gradients = op.backward(dy);
                       for (std::size_t i = 0; i < refs.size(); ++i)
                         if (gradients[i]) refs[i].add(gradients[i]);
                     });
}

/// x itself; `look(gradient)` sees its gradient when the backward pass comes by: for logging,
/// statistics, tests. Called at most once, and not if no gradient is wanted.
template <std::floating_point T, std::invocable<const BasicTensor<T>&> Look>
BasicVar<T> observe_gradient(const BasicVar<T>& x, Look look) {
  return x.tape().record(
      x.value(), x.requires_grad(),
      [gx = x.grad_ref(), look = std::move(look)](const BasicTensor<T>& dy) mutable {
        look(dy);
        gx.add(dy);
      });
}

}  // namespace graft::inline v0_1
