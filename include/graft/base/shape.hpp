#pragma once

#include <array>
#include <initializer_list>
#include <string>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1 {

/// Sizes of the axes of a row-major array, outermost first; up to six axes. A shape without axes is
/// a scalar.
class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  /// @throws ShapeError for a negative size or more than six axes.
  Shape(std::initializer_list<Index> dims);
  template <class Iterator>
  Shape(Iterator first, Iterator last) {
    assign(first, last);
  }

  int rank() const { return rank_; }
  Index operator[](int axis) const { return dims_[static_cast<std::size_t>(axis)]; }
  Index& operator[](int axis) { return dims_[static_cast<std::size_t>(axis)]; }
  /// Size of an axis; negative numbers count from the end.
  Index dim(int axis) const;
  Index elements() const {
    Index count = 1;
    for (int i = 0; i < rank_; ++i) count *= (*this)[i];
    return count;
  }
  /// Product of all axes but the last (1 for a scalar).
  Index rows() const {
    Index count = 1;
    for (int i = 0; i + 1 < rank_; ++i) count *= (*this)[i];
    return count;
  }
  /// Size of the last axis (1 for a scalar).
  Index cols() const { return rank_ == 0 ? 1 : (*this)[rank_ - 1]; }

  const Index* begin() const { return dims_.data(); }
  const Index* end() const { return dims_.data() + rank_; }

  /// The same shape with another last axis.
  Shape with_last(Index size) const;
  void append(Index size);

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a[i] != b[i]) return false;
    return true;
  }

  /// For messages: "[4, 256, 576]".
  std::string text() const;

 private:
  template <class Iterator>
  void assign(Iterator first, Iterator last) {
    for (; first != last; ++first) {
      if (*first < 0) throw ShapeError(concat("Shape: negative size ", *first));
      append(static_cast<Index>(*first));
    }
  }

  std::array<Index, kMaxRank> dims_{};
  int rank_ = 0;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/base/impl/shape_impl.hpp"
#endif
