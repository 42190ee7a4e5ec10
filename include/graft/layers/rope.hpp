#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

/// Angles of a rotary embedding: position · theta^(-2i / dim), i = 0 … dim/2 - 1, computed in T as
/// transformers does.
struct RopeConfig {
  Index dim = 0;
  double theta = 10000;
  std::string type = "default";  ///< default, linear (angles / factor), llama3 (Llama 3.1's
                                 ///< stretched low frequencies)
  double factor = 1;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double original_positions = 8192;
};

template <std::floating_point T>
class BasicRope {
 public:
  struct Tables {
    BasicTensor<T> cos;  ///< [rows, dim / 2]
    BasicTensor<T> sin;
  };

  BasicRope() = default;
  /// @throws ValueError for an unknown type.
  explicit BasicRope(const RopeConfig& config) {
    constexpr double kPi = 3.14159265358979323846;
    for (Index i = 0; i < config.dim / 2; ++i) {
      const T exponent = static_cast<T>(2 * i) / static_cast<T>(config.dim);
      T frequency = T{1} / std::pow(static_cast<T>(config.theta), exponent);
      if (config.type == "linear") {
        frequency /= static_cast<T>(config.factor);
      } else if (config.type == "llama3") {
        const double wavelength = 2 * kPi / static_cast<double>(frequency);
        const double low = config.original_positions / config.low_frequency_factor;
        const double high = config.original_positions / config.high_frequency_factor;
        if (wavelength > low) {
          frequency /= static_cast<T>(config.factor);
        } else if (wavelength >= high) {
          const T smooth = static_cast<T>(
              (config.original_positions / wavelength - config.low_frequency_factor) /
              (config.high_frequency_factor - config.low_frequency_factor));
          frequency =
              (T{1} - smooth) * frequency / static_cast<T>(config.factor) + smooth * frequency;
        }
      } else if (config.type != "default") {
        throw ValueError(
            concat("rope: type '", config.type, "', expected default, linear or llama3"));
      }
      frequencies_.push_back(frequency);
    }
  }

  /// Tables for rows of `length` tokens, row b at positions first[b], first[b] + 1, …; kept until
  /// asked for other sizes.
  const Tables& tables(const std::vector<Index>& first, Index length) const {
    if (length == length_ && first == first_) return tables_;
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
        tables_.cos(row, k) = std::cos(angle);
        tables_.sin(row, k) = std::sin(angle);
      }
    length_ = length;
    first_ = first;
    return tables_;
  }
  /// The same for `batch` rows that all begin at one position.
  const Tables& tables(Index batch, Index length, Index first) const {
    return tables(std::vector<Index>(static_cast<std::size_t>(batch), first), length);
  }

 private:
  std::vector<T> frequencies_;
  mutable Tables tables_;
  mutable Index length_ = -1;
  mutable std::vector<Index> first_;
};

}  // namespace graft::inline v0_1
