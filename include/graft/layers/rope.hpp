#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graft/tensor/tensor.hpp"

namespace graft {

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

  /// Tables for `batch` rows of `length` tokens at positions first, first + 1, …; kept until asked
  /// for other sizes.
  const Tables& tables(Index batch, Index length, Index first) const {
    if (batch == batch_ && length == length_ && first == first_) return tables_;
    const auto half = static_cast<Index>(frequencies_.size());
    tables_ = {BasicTensor<T>::empty({batch * length, half}),
               BasicTensor<T>::empty({batch * length, half})};
    for (Index t = 0; t < length; ++t)
      for (Index i = 0; i < half; ++i) {
        const T angle = static_cast<T>(first + t) * frequencies_[static_cast<std::size_t>(i)];
        for (Index b = 0; b < batch; ++b) {
          tables_.cos(b * length + t, i) = std::cos(angle);
          tables_.sin(b * length + t, i) = std::sin(angle);
        }
      }
    batch_ = batch;
    length_ = length;
    first_ = first;
    return tables_;
  }

 private:
  std::vector<T> frequencies_;
  mutable Tables tables_;
  mutable Index batch_ = -1, length_ = -1, first_ = -1;
};

}  // namespace graft
