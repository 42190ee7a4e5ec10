#pragma once

#include <utility>

#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicTensor<T> BasicTensor<T>::empty(const Shape& shape, bool to_keep) {
  BasicTensor t;
  t.shape_ = shape;
  t.block_ =
      MemoryPool::global().acquire(static_cast<std::size_t>(shape.elements()) * sizeof(T), to_keep);
  t.data_ = reinterpret_cast<T*>(reinterpret_cast<std::byte*>(t.block_) + kAlignment);
  return t;
}

template <std::floating_point T>
BasicTensor<T> BasicTensor<T>::full(const Shape& shape, T value) {
  BasicTensor t = empty(shape);
  std::fill_n(t.data_, t.size(), value);
  return t;
}

template <std::floating_point T>
BasicTensor<T> BasicTensor<T>::zeros(const Shape& shape) {
  return full(shape, T{0});
}

template <std::floating_point T>
BasicTensor<T> BasicTensor<T>::ones(const Shape& shape) {
  return full(shape, T{1});
}

template <std::floating_point T>
BasicTensor<T> BasicTensor<T>::scalar(T value) {
  return full(Shape{}, value);
}

template <std::floating_point T>
BasicTensor<T> BasicTensor<T>::identity(Index n) {
  BasicTensor t = zeros({n, n});
  for (Index i = 0; i < n; ++i) t.data_[i * n + i] = T{1};
  return t;
}

template <std::floating_point T>
BasicTensor<T> BasicTensor<T>::borrow(T* data, const Shape& shape,
                                      std::shared_ptr<const void> keep_alive) {
  BasicTensor t;
  t.shape_ = shape;
  t.data_ = data;
  t.keep_alive_ = std::move(keep_alive);
  return t;
}

template <std::floating_point T>
BasicTensor<T>::BasicTensor(const BasicTensor& other)
    : shape_(other.shape_),
      data_(other.data_),
      block_(other.block_),
      keep_alive_(other.keep_alive_) {
  if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
}

template <std::floating_point T>
BasicTensor<T>::BasicTensor(BasicTensor&& other) noexcept
    : shape_(other.shape_),
      data_(std::exchange(other.data_, nullptr)),
      block_(std::exchange(other.block_, nullptr)),
      keep_alive_(std::move(other.keep_alive_)) {}

template <std::floating_point T>
BasicTensor<T>& BasicTensor<T>::operator=(BasicTensor other) noexcept {
  swap(other);
  return *this;
}

template <std::floating_point T>
BasicTensor<T>::~BasicTensor() {
  release();
}

template <std::floating_point T>
void BasicTensor<T>::swap(BasicTensor& other) noexcept {
  std::swap(shape_, other.shape_);
  std::swap(data_, other.data_);
  std::swap(block_, other.block_);
  std::swap(keep_alive_, other.keep_alive_);
}

template <std::floating_point T>
T BasicTensor<T>::item() const {
  if (size() != 1)
    throw ShapeError(concat("Tensor::item: shape ", shape_.text(), ", expected one element"));
  return data_[0];
}

template <std::floating_point T>
BasicTensor<T> BasicTensor<T>::reshape(const Shape& shape) const {
  if (shape.elements() != size())
    throw ShapeError(concat("Tensor::reshape: ", shape_.text(), " to ", shape.text()));
  BasicTensor t = *this;
  t.shape_ = shape;
  return t;
}

template <std::floating_point T>
BasicTensor<T> BasicTensor<T>::slice_rows(Index first, Index count) const {
  if (rank() == 0 || first < 0 || count < 0 || first + count > shape_[0])
    throw ShapeError(
        concat("Tensor::slice_rows: [", first, ", ", first + count, ") of ", shape_.text()));
  BasicTensor t = *this;
  const Index stride = shape_[0] == 0 ? 0 : size() / shape_[0];
  t.shape_[0] = count;
  t.data_ += first * stride;
  return t;
}

template <std::floating_point T>
BasicTensor<T> BasicTensor<T>::clone() const {
  BasicTensor t = empty(shape_);
  std::copy_n(data_, size(), t.data_);
  return t;
}

template <std::floating_point T>
void BasicTensor<T>::fill(T value) const {
  std::fill_n(data_, size(), value);
}

template <std::floating_point T>
void BasicTensor<T>::release() noexcept {
  if (block_ != nullptr && block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1)
    MemoryPool::global().recycle(block_);
  block_ = nullptr;
  data_ = nullptr;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicTensor<float>;
template class BasicTensor<double>;
#endif

}  // namespace graft::inline v0_1
