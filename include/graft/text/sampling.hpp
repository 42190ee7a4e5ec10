#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/splitmix.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1::text {

namespace detail {

/// A number from 0 to bound − 1, each equally likely. The standard's distributions differ between
/// libraries; the generator itself does not.
inline std::uint64_t draw_below(std::mt19937_64& generator, std::uint64_t bound) {
  const std::uint64_t excess = (~std::uint64_t{0} % bound + 1) % bound;  // 2^64 mod bound
  while (true) {
    const std::uint64_t number = generator();
    if (number <= ~std::uint64_t{0} - excess) return number % bound;
  }
}

/// One seed from two numbers.
inline std::uint64_t mix_seeds(std::uint64_t a, std::uint64_t b) {
  return splitmix64(a + kSplitMixStep * (b + 1));
}

}  // namespace detail

/// The numbers 0 … count − 1 in a random order (Fisher–Yates) that depends on the seed alone: the
/// same with every compiler and standard library.
inline std::vector<Index> shuffled(Index count, std::uint64_t seed) {
  if (count < 0) throw ValueError(concat("shuffled: count ", count));
  std::vector<Index> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), Index{0});
  std::mt19937_64 generator(seed);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[detail::draw_below(generator, i)]);
  return order;
}

/// The order of one pass over the data; each epoch has its own, so that a run can resume anywhere.
inline std::vector<Index> epoch_order(Index count, std::uint64_t seed, std::uint64_t epoch) {
  return shuffled(count, detail::mix_seeds(seed, epoch));
}

struct HeldOutSplit {
  std::vector<Index> train;
  std::vector<Index> held_out;
};

/// Splits 0 … count − 1 at random into training and held-out indices, both in ascending order.
/// The held-out part has fraction · count members, rounded, but at least one, and leaves at least
/// one for training; it is empty for fraction 0.
/// Errors: ValueError unless 0 ≤ fraction < 1, or when there are too few members to split.
inline HeldOutSplit split_held_out(Index count, double fraction, std::uint64_t seed) {
  if (!(fraction >= 0 && fraction < 1))
    throw ValueError(concat("held-out fraction ", fraction, "; expected 0 <= fraction < 1"));
  if (count < 1 || (fraction > 0 && count < 2))
    throw ValueError(concat("cannot hold out a part of ", count, " examples"));
  const auto wanted = static_cast<Index>(std::llround(fraction * static_cast<double>(count)));
  const Index held = fraction == 0 ? 0 : std::clamp<Index>(wanted, 1, count - 1);
  const std::vector<Index> order = shuffled(count, detail::mix_seeds(seed, 0x5EED));
  HeldOutSplit split;
  split.held_out.assign(order.begin(), order.begin() + held);
  split.train.assign(order.begin() + held, order.end());
  std::sort(split.held_out.begin(), split.held_out.end());
  std::sort(split.train.begin(), split.train.end());
  return split;
}

}  // namespace graft::inline v0_1::text
