#pragma once

#include <algorithm>
#include <concepts>
#include <initializer_list>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/matrix_view.hpp"
#include "graft/base/shape.hpp"
#include "graft/base/types.hpp"
#include "graft/tensor/pool.hpp"

namespace graft::inline v0_1 {

/// Dense row-major array of up to six axes, contiguous, 64-byte aligned when graft allocates it.
///
/// A tensor is a handle: copies share their elements (`clone()` copies them). It may also borrow
/// memory that somebody else owns (`borrow`); that memory must outlive all handles unless
/// `keep_alive` holds it.
template <std::floating_point T>
class BasicTensor {
 public:
  using Scalar = T;

  BasicTensor() = default;

  /// Uninitialised elements; `to_keep` as in MemoryPool::acquire.
  static BasicTensor empty(const Shape& shape, bool to_keep = false) {
    BasicTensor t;
    t.shape_ = shape;
    t.block_ = MemoryPool::global().acquire(static_cast<std::size_t>(shape.elements()) * sizeof(T),
                                            to_keep);
    t.data_ = reinterpret_cast<T*>(reinterpret_cast<std::byte*>(t.block_) + kAlignment);
    return t;
  }
  static BasicTensor full(const Shape& shape, T value) {
    BasicTensor t = empty(shape);
    std::fill_n(t.data_, t.size(), value);
    return t;
  }
  static BasicTensor zeros(const Shape& shape) { return full(shape, T{0}); }
  static BasicTensor ones(const Shape& shape) { return full(shape, T{1}); }
  static BasicTensor scalar(T value) { return full(Shape{}, value); }
  static BasicTensor identity(Index n) {
    BasicTensor t = zeros({n, n});
    for (Index i = 0; i < n; ++i) t.data_[i * n + i] = T{1};
    return t;
  }
  /// Copies `values`, converted to T. @throws ShapeError if their number is not that of the shape.
  template <class U>
  static BasicTensor from(std::span<const U> values, const Shape& shape) {
    if (static_cast<Index>(values.size()) != shape.elements())
      throw ShapeError(concat("Tensor: ", values.size(), " values for shape ", shape.text()));
    BasicTensor t = empty(shape);
    std::transform(values.begin(), values.end(), t.data_, [](U v) { return static_cast<T>(v); });
    return t;
  }
  template <class U>
  static BasicTensor from(const std::vector<U>& values, const Shape& shape) {
    return from(std::span<const U>(values), shape);
  }
  static BasicTensor from(std::initializer_list<T> values, const Shape& shape) {
    return from(std::span<const T>(values.begin(), values.size()), shape);
  }
  /// A tensor over memory of somebody else; no copy.
  static BasicTensor borrow(T* data, const Shape& shape,
                            std::shared_ptr<const void> keep_alive = nullptr) {
    BasicTensor t;
    t.shape_ = shape;
    t.data_ = data;
    t.keep_alive_ = std::move(keep_alive);
    return t;
  }

  BasicTensor(const BasicTensor& other)
      : shape_(other.shape_),
        data_(other.data_),
        block_(other.block_),
        keep_alive_(other.keep_alive_) {
    if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
  }
  BasicTensor(BasicTensor&& other) noexcept
      : shape_(other.shape_),
        data_(std::exchange(other.data_, nullptr)),
        block_(std::exchange(other.block_, nullptr)),
        keep_alive_(std::move(other.keep_alive_)) {}
  BasicTensor& operator=(BasicTensor other) noexcept {
    swap(other);
    return *this;
  }
  ~BasicTensor() { release(); }
  void swap(BasicTensor& other) noexcept {
    std::swap(shape_, other.shape_);
    std::swap(data_, other.data_);
    std::swap(block_, other.block_);
    std::swap(keep_alive_, other.keep_alive_);
  }

  /// False for a default-constructed or moved-from handle.
  explicit operator bool() const { return data_ != nullptr; }
  const Shape& shape() const { return shape_; }
  Index dim(int axis) const { return shape_.dim(axis); }
  int rank() const { return shape_.rank(); }
  Index size() const { return shape_.elements(); }
  Index rows() const { return shape_.rows(); }
  Index cols() const { return shape_.cols(); }

  T* data() const { return data_; }
  T* begin() const { return data_; }
  T* end() const { return data_ + size(); }
  std::span<T> span() const { return {data_, static_cast<std::size_t>(size())}; }
  T& operator[](Index i) const { return data_[i]; }
  T& operator()(Index i, Index j) const { return data_[i * cols() + j]; }
  /// The only element. @throws ShapeError if there are more.
  T item() const {
    if (size() != 1)
      throw ShapeError(concat("Tensor::item: shape ", shape_.text(), ", expected one element"));
    return data_[0];
  }

  /// The same elements under another shape. @throws ShapeError if the numbers of elements differ.
  BasicTensor reshape(const Shape& shape) const {
    if (shape.elements() != size())
      throw ShapeError(concat("Tensor::reshape: ", shape_.text(), " to ", shape.text()));
    BasicTensor t = *this;
    t.shape_ = shape;
    return t;
  }
  /// Elements along the first axis, shared.
  BasicTensor slice_rows(Index first, Index count) const {
    if (rank() == 0 || first < 0 || count < 0 || first + count > shape_[0])
      throw ShapeError(
          concat("Tensor::slice_rows: [", first, ", ", first + count, ") of ", shape_.text()));
    BasicTensor t = *this;
    const Index stride = shape_[0] == 0 ? 0 : size() / shape_[0];
    t.shape_[0] = count;
    t.data_ += first * stride;
    return t;
  }
  BasicTensor clone() const {
    BasicTensor t = empty(shape_);
    std::copy_n(data_, size(), t.data_);
    return t;
  }
  template <std::floating_point U>
  BasicTensor<U> cast() const {
    return BasicTensor<U>::from(std::span<const T>(data_, static_cast<std::size_t>(size())),
                                shape_);
  }
  void fill(T value) const { std::fill_n(data_, size(), value); }

  /// As a matrix: all axes but the last are rows.
  MatrixView<T> matrix() const { return {data_, rows(), cols()}; }

  /// True if no other handle shares the elements and graft owns them.
  bool unique() const {
    return block_ != nullptr && block_->references.load(std::memory_order_acquire) == 1;
  }

 private:
  void release() noexcept {
    if (block_ != nullptr && block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1)
      MemoryPool::global().recycle(block_);
    block_ = nullptr;
    data_ = nullptr;
  }

  Shape shape_;
  T* data_ = nullptr;
  MemoryPool::Block* block_ = nullptr;
  std::shared_ptr<const void> keep_alive_;
};

using Tensor = BasicTensor<float>;

}  // namespace graft::inline v0_1
