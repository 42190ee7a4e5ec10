#pragma once

#include <cstdint>

namespace graft::inline v0_1 {

/// Step of the counter whose values `splitmix64` turns into random bits.
inline constexpr std::uint64_t kSplitMixStep = 0x9e3779b97f4a7c15ULL;

/// 64 well-mixed bits of a counter: the output function of SplitMix64 (Steele, Lea and Flood 2014,
/// "Fast Splittable Pseudorandom Number Generators", fig. 16). A bijection.
inline constexpr std::uint64_t splitmix64(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

}  // namespace graft::inline v0_1
