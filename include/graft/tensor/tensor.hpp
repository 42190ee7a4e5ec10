#pragma once

#include <algorithm>
#include <concepts>
#include <initializer_list>
#include <memory>
#include <span>
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
  static BasicTensor empty(const Shape& shape, bool to_keep = false);
  static BasicTensor full(const Shape& shape, T value);
  static BasicTensor zeros(const Shape& shape);
  static BasicTensor ones(const Shape& shape);
  static BasicTensor scalar(T value);
  static BasicTensor identity(Index n);
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
                            std::shared_ptr<const void> keep_alive = nullptr);

  BasicTensor(const BasicTensor& other);
  BasicTensor(BasicTensor&& other) noexcept;
  BasicTensor& operator=(BasicTensor other) noexcept;
  ~BasicTensor();
  void swap(BasicTensor& other) noexcept;

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
  T item() const;

  /// The same elements under another shape. @throws ShapeError if the numbers of elements differ.
  BasicTensor reshape(const Shape& shape) const;
  /// Elements along the first axis, shared.
  BasicTensor slice_rows(Index first, Index count) const;
  BasicTensor clone() const;
  template <std::floating_point U>
  BasicTensor<U> cast() const {
    return BasicTensor<U>::from(std::span<const T>(data_, static_cast<std::size_t>(size())),
                                shape_);
  }
  void fill(T value) const;

  /// As a matrix: all axes but the last are rows.
  MatrixView<T> matrix() const { return {data_, rows(), cols()}; }

  /// True if no other handle shares the elements and graft owns them.
  bool unique() const {
    return block_ != nullptr && block_->references.load(std::memory_order_acquire) == 1;
  }

 private:
  void release() noexcept;

  Shape shape_;
  T* data_ = nullptr;
  MemoryPool::Block* block_ = nullptr;
  std::shared_ptr<const void> keep_alive_;
};

using Tensor = BasicTensor<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/tensor/impl/tensor_impl.hpp"
#endif
