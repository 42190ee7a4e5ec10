#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// W[o, j] = table[o, ⌊j groups / columns⌋, codes[o, j]], one byte a code. table: [rows, groups,
/// entries]; result: [rows, columns]; the gradient of an entry is the sum over the places that read
/// it. The codes are not checked against the number of entries. @throws ShapeError for a table of
/// another rank or another number of codes
template <std::floating_point T>
BasicVar<T> table_lookup(const BasicVar<T>& table,
                         std::shared_ptr<const std::vector<std::uint8_t>> codes, Index columns);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/table_lookup_impl.hpp"
#endif
