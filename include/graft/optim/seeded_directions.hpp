#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "graft/autograd/parameter.hpp"
#include "graft/base/error.hpp"
#include "graft/base/rng.hpp"

/// What optimisers share that know parameters as one vector and directions by their seeds.
namespace graft::inline v0_1 {

/// The elements of all parameters one after the other.
template <std::floating_point T>
std::vector<double> flat_values(const std::vector<BasicParameter<T>>& parameters) {
  std::vector<double> list;
  for (const auto& p : parameters)
    for (const T v : p.value()) list.push_back(static_cast<double>(v));
  return list;
}
/// Writes them back. @throws ShapeError for another number of values
template <std::floating_point T>
void set_flat_values(const std::vector<BasicParameter<T>>& parameters,
                     std::span<const double> values) {
  Index size = 0;
  for (const auto& p : parameters) size += p.size();
  if (std::ssize(values) != size)
    throw ShapeError(concat("set_flat_values: ", values.size(), " values for ", size));
  auto next = values.begin();
  for (const auto& p : parameters)
    for (T& v : p.value()) v = static_cast<T>(*next++);
}

/// Directions by their seeds: `size` numbers that everybody who knows the seed makes alike.
using SeededDirection = std::function<std::vector<double>(std::uint64_t seed, Index size)>;

/// N(0, 1), as torch draws floats.
inline std::vector<double> normal_direction(std::uint64_t seed, Index size) {
  TorchGenerator generator(seed);
  std::vector<float> drawn(static_cast<std::size_t>(size));
  generator.normal(drawn.data(), size, 0, 1);
  return {drawn.begin(), drawn.end()};
}
/// N(0, 1) restricted to ±1/√size, by rejection from the uniform distribution: nearly uniform, with
/// a variance of about 1 / (3 size).
inline std::vector<double> truncated_normal_direction(std::uint64_t seed, Index size) {
  TorchGenerator generator(seed);
  const double bound = 1 / std::sqrt(static_cast<double>(size));
  std::vector<double> drawn(static_cast<std::size_t>(size));
  for (double& v : drawn) {
    do v = bound * (2 * generator.uniform() - 1);
    while (generator.uniform() >= std::exp(-v * v / 2));
  }
  return drawn;
}

namespace detail {

/// values += factor · direction. @throws ShapeError for another length
inline void move_along(std::vector<double>& values, double factor,
                       const std::vector<double>& direction) {
  if (direction.size() != values.size())
    throw ShapeError(concat("a direction of ", direction.size(), " elements for ", values.size(),
                            " parameters"));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] += factor * direction[i];
}

/// (L(w + ε z) − L(w − ε z)) / 2ε; the parameters have the bits of w afterwards.
template <std::floating_point T, class Loss>
double projected_gradient(const std::vector<BasicParameter<T>>& parameters,
                          const std::vector<double>& direction, double eps, Loss&& loss) {
  const auto start = flat_values(parameters);
  const auto at = [&](double step) {
    auto moved = start;
    move_along(moved, step, direction);
    set_flat_values(parameters, moved);
    return static_cast<double>(loss());
  };
  const double up = at(eps), down = at(-eps);
  set_flat_values(parameters, start);
  return (up - down) / (2 * eps);
}

}  // namespace detail

}  // namespace graft::inline v0_1
