#pragma once

#include <utility>

#include "graft/autograd/parameter.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicParameter<T>::BasicParameter(BasicTensor<T> value, bool trainable)
    : state_(std::make_shared<State>(State{std::move(value), {}, trainable})) {}

template <std::floating_point T>
BasicParameter<T>::BasicParameter(const BasicParameter&) = default;
template <std::floating_point T>
BasicParameter<T>::BasicParameter(BasicParameter&&) noexcept = default;
template <std::floating_point T>
BasicParameter<T>& BasicParameter<T>::operator=(const BasicParameter&) = default;
template <std::floating_point T>
BasicParameter<T>& BasicParameter<T>::operator=(BasicParameter&&) noexcept = default;
template <std::floating_point T>
BasicParameter<T>::~BasicParameter() = default;

template <std::floating_point T>
void BasicParameter<T>::assign(BasicTensor<T> value) const {
  state_->value = std::move(value);
  state_->grad = {};
}

template <std::floating_point T>
void BasicParameter<T>::zero_grad() const {
  state_->grad = {};
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicParameter<float>;
template class BasicParameter<double>;
#endif

}  // namespace graft::inline v0_1
