#pragma once

#include "graft/base/shape.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL Shape::Shape(std::initializer_list<Index> dims) { assign(dims.begin(), dims.end()); }

GRAFT_KERNEL Index Shape::dim(int axis) const {
  const int wrapped = axis < 0 ? axis + rank_ : axis;
  if (wrapped < 0 || wrapped >= rank_)
    throw ShapeError(concat("Shape: axis ", axis, " of ", text()));
  return (*this)[wrapped];
}

GRAFT_KERNEL Shape Shape::with_last(Index size) const {
  if (rank_ == 0) return Shape{size};
  Shape result = *this;
  result[rank_ - 1] = size;
  return result;
}

GRAFT_KERNEL void Shape::append(Index size) {
  if (rank_ == kMaxRank) throw ShapeError(concat("Shape: more than six axes: ", text()));
  dims_[static_cast<std::size_t>(rank_++)] = size;
}

GRAFT_KERNEL std::string Shape::text() const {
  std::string result = "[";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) result += ", ";
    result += std::to_string((*this)[i]);
  }
  return result + "]";
}

}  // namespace graft::inline v0_1
