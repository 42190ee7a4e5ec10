#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Elements of a flat array by number: y[i] = x.flat[index[i]], with an index that many calls share
/// and none copies. Gradients of repeated elements add. Numbers are not checked.
/// @throws ShapeError if the index does not have the elements of `shape`.
template <std::floating_point T>
BasicVar<T> take_shared(const BasicVar<T>& x,
                        std::shared_ptr<const std::vector<std::int32_t>> index, const Shape& shape);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/take_shared_impl.hpp"
#endif
