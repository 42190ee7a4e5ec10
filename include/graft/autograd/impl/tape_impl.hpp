#pragma once

#include "graft/autograd/tape.hpp"

namespace graft::inline v0_1::detail {

template <class T>
RecipeRef<T>::~RecipeRef() {
  if (recipe_ == nullptr || --recipe_->references > 0) return;
  MemoryPool::Block* block = recipe_->block;
  recipe_->~Recipe();
  MemoryPool::global().recycle(block);
}

/// A recipe for `value` rounded to bf16, which it keeps in half the bytes.
inline RecipeRef<float> bf16_recipe(const BasicTensor<float>& value) {
  const auto halves = BasicTensor<float>::empty({(value.size() + 1) / 2}, true);
  kernels::pack_bf16(value.data(), reinterpret_cast<std::uint16_t*>(halves.data()), value.size());
  auto recipe = make_recipe<float>([halves, shape = value.shape()] {
    auto again = BasicTensor<float>::empty(shape);
    kernels::unpack_bf16(reinterpret_cast<const std::uint16_t*>(halves.data()), again.data(),
                         again.size());
    return again;
  });
  recipe->halves = reinterpret_cast<const std::uint16_t*>(halves.data());
  return recipe;
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
void BasicGradRef<T>::add(const BasicTensor<T>& g) const {
  if (slot_ == nullptr) return;
  if (g.size() != slot_->shape.elements())
    throw ShapeError(
        concat("gradient: shape ", g.shape().text(), ", expected ", slot_->shape.text()));
  BasicTensor<T>& grad = *slot_->target;
  if (!grad) {
    grad = g.reshape(slot_->shape);
  } else if (grad.unique()) {
    kernels::add(grad.data(), g.data(), grad.data(), grad.size());
  } else {
    BasicTensor<T> sum = BasicTensor<T>::empty(slot_->shape);
    kernels::add(grad.data(), g.data(), sum.data(), sum.size());
    grad = std::move(sum);
  }
}

template <std::floating_point T>
typename BasicGradRef<T>::Buffer BasicGradRef<T>::buffer() const {
  BasicTensor<T>& grad = *slot_->target;
  if (!grad) {
    grad = BasicTensor<T>::empty(slot_->shape);
    return {grad.data(), false};
  }
  if (!grad.unique()) grad = grad.clone();
  return {grad.data(), true};
}

template <std::floating_point T>
T* BasicGradRef<T>::accumulator() const {
  const Buffer b = buffer();
  if (!b.accumulate) kernels::fill(T{0}, b.data, slot_->shape.elements());
  return b.data;
}

template <std::floating_point T>
BasicVar<T>::BasicVar(const BasicVar&) = default;
template <std::floating_point T>
BasicVar<T>::BasicVar(BasicVar&&) noexcept = default;
template <std::floating_point T>
BasicVar<T>& BasicVar<T>::operator=(const BasicVar&) = default;
template <std::floating_point T>
BasicVar<T>& BasicVar<T>::operator=(BasicVar&&) noexcept = default;
template <std::floating_point T>
BasicVar<T>::~BasicVar() = default;

template <std::floating_point T>
BasicSaved<T> BasicVar<T>::saved() const {
  if constexpr (std::is_same_v<T, float>)
    if (computed_ && !recipe_ && tape_->options().bf16_saved &&
        value_.size() >= detail::kSmallSaved)
      recipe_ = detail::bf16_recipe(value_);
  return recipe_ ? BasicSaved<T>(recipe_) : BasicSaved<T>(value_);
}

template <std::floating_point T>
BasicTape<T>::~BasicTape() {
  clear();
}

template <std::floating_point T>
typename BasicTape<T>::Var BasicTape<T>::constant(Tensor value) {
  return {this, std::move(value), nullptr};
}

template <std::floating_point T>
typename BasicTape<T>::Var BasicTape<T>::leaf(Tensor value) {
  if (!options_.gradients) return constant(std::move(value));
  auto* slot = make_slot(value.shape(), nullptr);
  return {this, std::move(value), slot};
}

template <std::floating_point T>
typename BasicTape<T>::Var BasicTape<T>::parameter(const BasicParameter<T>& parameter) {
  if (!options_.gradients || !parameter.trainable()) return constant(parameter.value());
  auto* slot = make_slot(parameter.shape(), &parameter.mutable_grad());
  return {this, parameter.value(), slot};
}

template <std::floating_point T>
BasicSaved<T> BasicTape<T>::keep(const Tensor& value) const {
  if constexpr (std::is_same_v<T, float>)
    if (options_.gradients && options_.bf16_saved && value.size() >= detail::kSmallSaved)
      return BasicSaved<T>(detail::bf16_recipe(value));
  return BasicSaved<T>(value);
}

template <std::floating_point T>
void BasicTape<T>::backward(const Var& output, const Tensor& gradient) {
  if (&output.tape() != this) throw ValueError("Tape::backward: the value belongs to another tape");
  if (!output.requires_grad())
    throw ValueError("Tape::backward: the value depends on nothing that wants a gradient");
  struct Cleanup {
    BasicTape* tape;
    ~Cleanup() { tape->drop_nodes(); }
  } cleanup{this};
  output.grad_ref().add(gradient);
  while (last_ != nullptr) {
    Node* node = last_;
    last_ = node->previous;
    Tensor dy;
    if (node->out != nullptr) dy = std::exchange(node->out->own, Tensor{});
    struct Destroy {
      Node* node;
      ~Destroy() { node->~Node(); }
    } destroy{node};
    if (dy) node->run(dy);
  }
}

template <std::floating_point T>
void BasicTape<T>::clear() {
  drop_nodes();
  while (slots_ != nullptr) {
    SlotLink* next = slots_->next;
    slots_->slot.~GradSlot();
    slots_ = next;
  }
  while (chunks_ != nullptr) {
    MemoryPool::Block* next = chunks_->next;
    MemoryPool::global().recycle(chunks_);
    chunks_ = next;
  }
  cursor_ = limit_ = nullptr;
}

template <std::floating_point T>
detail::GradSlot<T>* BasicTape<T>::make_slot(const Shape& shape, Tensor* target) {
  slots_ = ::new (allocate(sizeof(SlotLink), alignof(SlotLink))) SlotLink(shape, target, slots_);
  return &slots_->slot;
}

template <std::floating_point T>
void* BasicTape<T>::allocate(std::size_t bytes, std::size_t alignment) {
  auto address = reinterpret_cast<std::uintptr_t>(cursor_);
  address = (address + alignment - 1) & ~(alignment - 1);
  if (cursor_ == nullptr || address + bytes > reinterpret_cast<std::uintptr_t>(limit_)) {
    constexpr std::size_t kChunk = std::size_t{1} << 16;
    const std::size_t size = bytes + kAlignment > kChunk ? bytes + kAlignment : kChunk;
    MemoryPool::Block* block = MemoryPool::global().acquire(size);
    block->next = chunks_;
    chunks_ = block;
    cursor_ = reinterpret_cast<std::byte*>(block) + kAlignment;
    limit_ = cursor_ + size;
    address = reinterpret_cast<std::uintptr_t>(cursor_);
  }
  cursor_ = reinterpret_cast<std::byte*>(address) + bytes;
  return reinterpret_cast<void*>(address);
}

template <std::floating_point T>
typename BasicTape<T>::Var BasicTape<T>::append(Node* node, Tensor value) {
  node->previous = last_;
  last_ = node;
  Var result{this, std::move(value), node->out};
  result.computed_ = true;
  return result;
}

template <std::floating_point T>
void BasicTape<T>::drop_nodes() noexcept {
  while (last_ != nullptr) {
    Node* previous = last_->previous;
    last_->~Node();
    last_ = previous;
  }
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class detail::RecipeRef<float>;
template class detail::RecipeRef<double>;
template class BasicGradRef<float>;
template class BasicGradRef<double>;
template class BasicVar<float>;
template class BasicVar<double>;
template class BasicTape<float>;
template class BasicTape<double>;
#endif

}  // namespace graft::inline v0_1
