#pragma once

#include <algorithm>
#include <cmath>

#include "graft/layers/rope.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicRope<T>::BasicRope(const RopeConfig& config) : config_(config) {
  const auto& type = config.type;
  if (type != "default" && type != "linear" && type != "dynamic" && type != "llama3" &&
      type != "yarn" && type != "longrope")
    throw ValueError(concat("rope: type '", type,
                            "', expected default, linear, dynamic, llama3, yarn or longrope"));
  const auto half = static_cast<std::size_t>(config.dim / 2);
  if (type == "longrope" &&
      (config.short_divisors.size() != half || config.long_divisors.size() != half))
    throw ValueError(concat("rope: ", config.short_divisors.size(), " short and ",
                            config.long_divisors.size(), " long factors for ", half,
                            " frequencies"));
  if (type == "dynamic" && (config.dim <= 2 || config.max_positions <= 0))
    throw ValueError(concat("rope: dynamic angles of ", config.dim, " elements for ",
                            config.max_positions, " positions"));
  frequencies_ = frequencies(0);
}

template <std::floating_point T>
const typename BasicRope<T>::Tables& BasicRope<T>::tables(const std::vector<Index>& first,
                                                          Index length) const {
  if (length == length_ && first == first_) return tables_;
  if (config_.type == "dynamic" || config_.type == "longrope")
    frequencies_ = frequencies(first.empty() ? 0 : *std::ranges::max_element(first) + length);
  const auto half = static_cast<Index>(frequencies_.size()), batch = std::ssize(first);
  tables_ = {BasicTensor<T>::empty({batch * length, half}),
             BasicTensor<T>::empty({batch * length, half})};
  for (Index b = 0; b < batch; ++b)
    for (Index i = 0; i < length * half; ++i) {
      const Index row = b * length + i / half, k = i % half;
      if (b > 0 && first[static_cast<std::size_t>(b)] == first[0]) {
        tables_.cos(row, k) = tables_.cos[i];
        tables_.sin(row, k) = tables_.sin[i];
        continue;
      }
      const T angle = static_cast<T>(first[static_cast<std::size_t>(b)] + i / half) *
                      frequencies_[static_cast<std::size_t>(k)];
      tables_.cos(row, k) = std::cos(angle) * static_cast<T>(config_.table_scale);
      tables_.sin(row, k) = std::sin(angle) * static_cast<T>(config_.table_scale);
    }
  length_ = length;
  first_ = first;
  return tables_;
}

template <std::floating_point T>
std::vector<T> BasicRope<T>::frequencies(Index positions) const {
  constexpr double kPi = 3.14159265358979323846;
  const auto& c = config_;
  const auto dim = static_cast<double>(c.dim);
  double theta = c.theta;
  if (c.type == "dynamic")
    theta *= std::pow(
        c.factor * std::max(static_cast<double>(positions), c.max_positions) / c.max_positions -
            (c.factor - 1),
        dim / (dim - 2));
  // yarn: where the ramp begins and ends.
  double first = 0, last = 0;
  if (c.type == "yarn") {
    const auto index = [&](double turns) {
      return dim * std::log(c.original_positions / (turns * 2 * kPi)) / (2 * std::log(theta));
    };
    first = index(c.fast_rotations);
    last = index(c.slow_rotations);
    if (c.truncate) {
      first = std::floor(first);
      last = std::ceil(last);
    }
    first = std::max(first, 0.0);
    last = std::min(last, dim - 1);
    if (first == last) last += 0.001;
  }
  std::vector<T> result;
  for (Index i = 0; i < c.dim / 2; ++i) {
    const T exponent = static_cast<T>(2 * i) / static_cast<T>(c.dim);
    T frequency = T{1} / std::pow(static_cast<T>(theta), exponent);
    if (c.type == "linear") {
      frequency /= static_cast<T>(c.factor);
    } else if (c.type == "llama3") {
      const double wavelength = 2 * kPi / static_cast<double>(frequency);
      const double low = c.original_positions / c.low_frequency_factor;
      const double high = c.original_positions / c.high_frequency_factor;
      if (wavelength > low) {
        frequency /= static_cast<T>(c.factor);
      } else if (wavelength >= high) {
        const T smooth =
            static_cast<T>((c.original_positions / wavelength - c.low_frequency_factor) /
                           (c.high_frequency_factor - c.low_frequency_factor));
        frequency = (T{1} - smooth) * frequency / static_cast<T>(c.factor) + smooth * frequency;
      }
    } else if (c.type == "yarn") {
      const T stretched =
          static_cast<T>(std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0));
      frequency = frequency / static_cast<T>(c.factor) * stretched + frequency * (T{1} - stretched);
    } else if (c.type == "longrope") {
      const auto& divisors = static_cast<double>(positions) > c.original_positions
                                 ? c.long_divisors
                                 : c.short_divisors;
      frequency /= static_cast<T>(divisors[static_cast<std::size_t>(i)]);
    }
    result.push_back(frequency);
  }
  return result;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicRope<float>;
template class BasicRope<double>;
#endif

}  // namespace graft::inline v0_1
