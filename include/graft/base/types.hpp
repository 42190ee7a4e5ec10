#pragma once

#include <cstddef>
#include <cstdint>

namespace graft::inline v0_1 {

/// Signed type of every size, index and stride.
using Index = std::ptrdiff_t;

/// Alignment in bytes of all storage that graft allocates: one cache line, one AVX-512 register.
inline constexpr std::size_t kAlignment = 64;

}  // namespace graft::inline v0_1
