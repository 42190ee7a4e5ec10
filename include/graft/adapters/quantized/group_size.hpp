#pragma once

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1::detail {

/// Groups of a row of `in` values. @throws ValueError if the size does not divide the row
inline Index groups_of_row(const char* method, Index group_size, Index in) {
  if (group_size < 1 || in % group_size != 0)
    throw ValueError(
        concat(method, ": group_size ", group_size, " for ", in, " inputs, expected a divisor"));
  return in / group_size;
}

/// @throws ValueError for bits outside of 2 … 8
inline void check_bits(const char* method, Index bits) {
  if (bits < 2 || bits > 8) throw ValueError(concat(method, ": ", bits, " bits, expected 2 to 8"));
}

}  // namespace graft::inline v0_1::detail
