#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/base/splitmix.hpp"
#include "graft/optim/seeded_directions.hpp"

namespace graft::inline v0_1 {

/// A number in one signed byte.
///
///     linear:       q = clamp(round(g / s), ±127),  ĝ = s q
///     logarithmic:  |q| = clamp(round(127 + 8 log₂(|g| / s)), 0 … 127),  ĝ = ± s 2^((|q| − 127) /
///     8)
///
/// s is the step of the linear code and the largest value of the logarithmic one; 0 decodes to 0.
/// Halves go to even.
struct ByteCode {
  bool logarithmic = false;
  double scale = 1;

  /// @throws ValueError for what is no number.
  std::int8_t encode(double g) const {
    if (!std::isfinite(g)) throw ValueError(concat("ByteCode: ", g, " has no code"));
    double q = 0;
    if (!logarithmic)
      q = std::clamp(std::nearbyint(g / scale), -127.0, 127.0);
    else if (g != 0)
      q = std::copysign(
          std::clamp(std::nearbyint(127 + 8 * std::log2(std::abs(g) / scale)), 0.0, 127.0), g);
    return static_cast<std::int8_t>(q);
  }
  double decode(std::int8_t q) const {
    if (!logarithmic || q == 0) return scale * q;
    return std::copysign(scale * std::exp2((std::abs(static_cast<int>(q)) - 127) / 8.0), q);
  }
};

struct MezoConfig {
  double eps = 1e-3;
  double learning_rate = 1e-6;
  std::string code = "linear";  ///< linear, logarithmic, none (numbers as they are)
  double code_scale = 1;        ///< s of the code

  static constexpr const char* kPeftType = "MEZO";

  template <class Visitor>
  void fields(Visitor& v) {
    v("eps", eps);
    v("learning_rate", learning_rate);
    v("code", code);
    v("code_scale", code_scale);
  }
  /// @throws ValueError for what no step can be made with.
  void validate() const {
    if (code != "linear" && code != "logarithmic" && code != "none")
      throw ValueError(concat("MeZO: code '", code, "', expected linear, logarithmic or none"));
    if (!(eps > 0) || !(learning_rate >= 0) || !(code_scale > 0))
      throw ValueError(concat("MeZO: eps ", eps, ", learning_rate ", learning_rate, ", code_scale ",
                              code_scale));
  }
};

/// What one machine tells the others in one iteration: a seed that all of them can derive, and a
/// byte.
struct MezoRecord {
  std::uint64_t seed = 0;
  std::int8_t byte = 0;
  double value =
      0;  ///< what everybody applies, the sender too: the decoded byte, or g without code
};

/// Training of one model on several machines by values of the loss and shared randomness:
///
///     g_i = (L_i(w + ε z_i) − L_i(w − ε z_i)) / 2ε,  z_i ~ N(0, 1) of a seed
///     w ← w − η/N Σ_i ĝ_i z_i,  over the machines in their order
///
/// Each machine measures at the same w, sends one byte and applies what all have sent, so the
/// replicas keep the same bits; who joins later applies the log of (seed, byte). One machine
/// without code is MeZO. Memory: a copy of w while it measures, instead of adding and subtracting ε
/// z in place, which would leave each machine with rounding errors of its own. Sources: Malladi et
/// al. 2023, arXiv:2305.17333, algorithm 1; Zelikman et al. 2023, arXiv:2306.10015.
template <std::floating_point T>
class BasicMezo {
 public:
  /// @throws ValueError for a setting outside of its range.
  explicit BasicMezo(std::vector<BasicParameter<T>> parameters, MezoConfig config = {},
                     SeededDirection direction = normal_direction)
      : parameters_(std::move(parameters)),
        config_(std::move(config)),
        direction_(std::move(direction)) {
    config_.validate();
    for (const auto& p : parameters_) size_ += p.size();
  }
  /// Seed of a machine in an iteration.
  static std::uint64_t seed(std::uint64_t machine, std::uint64_t iteration) {
    return splitmix64(splitmix64(iteration) + kSplitMixStep * (machine + 1));
  }
  ByteCode code() const { return {config_.code == "logarithmic", config_.code_scale}; }

  /// g along the direction of a seed; `loss()` gives the loss at the parameters as they are.
  template <class Loss>
  double measure(Loss&& loss, std::uint64_t seed) const {
    return detail::projected_gradient(parameters_, direction_(seed, size_), config_.eps, loss);
  }
  /// What is sent for g, and what was received.
  MezoRecord record(std::uint64_t seed, double g) const {
    return config_.code == "none" ? MezoRecord{seed, 0, g} : received(seed, code().encode(g));
  }
  MezoRecord received(std::uint64_t seed, std::int8_t byte) const {
    return {seed, byte, code().decode(byte)};
  }
  /// One iteration: the records of all machines in their order.
  void apply(std::span<const MezoRecord> machines) const {
    if (machines.empty()) return;
    auto w = flat_values(parameters_);
    const double rate = config_.learning_rate / static_cast<double>(machines.size());
    for (const auto& r : machines)
      if (r.value != 0) detail::move_along(w, -rate * r.value, direction_(r.seed, size_));
    set_flat_values(parameters_, w);
  }
  /// One iteration of a single machine; returns g.
  template <class Loss>
  double step(Loss&& loss, std::uint64_t seed) const {
    const double g = measure(loss, seed);
    const auto own = record(seed, g);
    apply({&own, 1});
    return g;
  }
  const MezoConfig& config() const { return config_; }

 private:
  std::vector<BasicParameter<T>> parameters_;
  MezoConfig config_;
  SeededDirection direction_;
  Index size_ = 0;
};

using Mezo = BasicMezo<float>;

}  // namespace graft::inline v0_1
