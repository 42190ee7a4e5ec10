#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "graft/autograd/tape.hpp"
#include "graft/optim/clip.hpp"
#include "graft/optim/optimizer.hpp"

namespace graft::inline v0_1 {

struct LomoConfig {
  double learning_rate = 1e-3;
  double clip_grad_value = 0;  ///< largest magnitude of an entry; 0: no limit
  double clip_grad_norm = 0;   ///< largest norm of all gradients together; 0: no limit
};

/// Moves parameters inside of the backward pass, so that a gradient lives only until it is used.
///
/// `use(tape, p)` puts a parameter on a tape, once, before it is used; in the backward pass its
/// gradient is complete when the walk comes back there: it is handed to `update_now` and dropped,
/// never stored in the parameter. The products that need the old value are done by then. Clipping
/// by the norm of all gradients takes two passes over the same loss: one between `begin_measuring`
/// and `end_measuring`, which adds the norm up and moves nothing, then one that moves. Gradients
/// cannot be gathered over several passes.
template <std::floating_point T>
class BasicFusedUpdates {
 public:
  virtual ~BasicFusedUpdates() = default;

  /// The parameter as a value of the tape. A parameter that cannot be trained now is a constant.
  BasicVar<T> use(BasicTape<T>& tape, const BasicParameter<T>& parameter) {
    return tape.record(parameter.value(), parameter.trainable(),
                       [this, parameter](const BasicTensor<T>& gradient) {
                         if (measuring_) {
                           squares_ += static_cast<double>(
                               kernels::dot(gradient.data(), gradient.data(), gradient.size()));
                           return;
                         }
                         update_now(parameter, gradient, factor_);
                       });
  }
  void begin_measuring() {
    measuring_ = true;
    squares_ = 0;
  }
  /// The norm that was measured; updates that follow are scaled so that it is at most `largest`.
  double end_measuring(double largest) {
    measuring_ = false;
    const double norm = std::sqrt(squares_);
    factor_ = clip_factor(norm, largest);
    return norm;
  }

 protected:
  virtual void update_now(const BasicParameter<T>& parameter, const BasicTensor<T>& gradient,
                          double gradient_scale) = 0;

 private:
  bool measuring_ = false;
  double squares_ = 0, factor_ = 1;
};

/// LOMO: p ← p − η g, g limited by value for each entry, or scaled by min(1, c / (‖g‖ + 1e-6)) for
/// the norm ‖g‖ of all gradients. No state.
///
/// Use it as an optimiser (`step`), or fused into the backward pass (`BasicFusedUpdates`), where at
/// most one gradient of a parameter lives at a time; there the norm needs a pass of its own.
/// Source: Lv et al. 2023 (arXiv:2306.09782), §3.
template <std::floating_point T>
class BasicLomo final : public BasicOptimizer<T>, public BasicFusedUpdates<T> {
 public:
  /// @throws ValueError for a negative setting.
  explicit BasicLomo(std::vector<BasicParameter<T>> parameters, const LomoConfig& config = {})
      : BasicOptimizer<T>({{std::move(parameters), 1, {}}}, config.learning_rate, 0),
        config_(config) {
    if (!(config.clip_grad_value >= 0) || !(config.clip_grad_norm >= 0))
      throw ValueError(concat("LOMO: clipping by value ", config.clip_grad_value, " and norm ",
                              config.clip_grad_norm, ", expected at least 0"));
  }

  /// One step from gradients that the parameters hold, the norm taken over all of them.
  void step() {
    BasicOptimizer<T>::step(clip_factor(gradient_norm(this->parameters()), config_.clip_grad_norm));
  }
  Index moments() const override { return 0; }
  const LomoConfig& config() const { return config_; }

 private:
  void update(const BasicParameter<T>& parameter, BasicParameterState<T>&,
              const typename BasicOptimizer<T>::Settings& settings) override {
    move(parameter, parameter.grad(), settings.learning_rate, settings.gradient_scale);
  }
  void update_now(const BasicParameter<T>& parameter, const BasicTensor<T>& gradient,
                  double gradient_scale) override {
    move(parameter, gradient, this->learning_rate(), gradient_scale);
  }
  void move(const BasicParameter<T>& parameter, const BasicTensor<T>& gradient, double rate,
            double gradient_scale) const {
    const T factor = static_cast<T>(gradient_scale), eta = static_cast<T>(rate);
    const T limit = static_cast<T>(config_.clip_grad_value);
    T* value = parameter.value().data();
    for (Index i = 0; i < gradient.size(); ++i) {
      T g = gradient[i] * factor;
      if (limit > T{0}) g = std::clamp(g, -limit, limit);
      value[i] -= eta * g;
    }
  }

  LomoConfig config_;
};

struct AdaLomoConfig {
  double learning_rate = 5e-4;
  std::vector<double> eps = {1e-30, 1e-3};  ///< added to g²; least size of a parameter
  double clip_threshold = 1.0;              ///< largest root mean square of an update
  double decay_rate = -0.8;                 ///< β_t = 1 − t^decay_rate
  double weight_decay = 0;
};

/// AdaLomo: steps of the size of the parameter, from a second moment of out + in numbers a matrix.
///
///     r ← β_t r + (1 − β_t) mean over columns of (g² + ε₁), c alike over rows, β_t = 1 − t^−0.8
///     u = g / √(r cᵀ / mean(r)); vectors keep the whole second moment
///     u ← u / max(1, RMS(u) / d), ρ = max(ε₂, RMS(p)), p ← (1 − η ρ λ) p − η ρ u
///
/// Tensors of more than two axes are matrices of their first axis by the rest. Use it as an
/// optimiser, or fused into the backward pass (`BasicFusedUpdates`). `second_moment` gives r and c
/// (or the moment of a vector and nothing). Memory: out + in numbers a matrix. Source: Lv et al.
/// 2023 (arXiv:2310.10195), algorithm 1, with Adafactor's β_t and clipping as its code has them.
template <std::floating_point T>
class BasicAdaLomo final : public BasicFusedUpdates<T> {
 public:
  struct Moment {
    std::int64_t steps = 0;
    std::vector<double> row, column;
  };

  /// @throws ValueError for a setting outside of its range.
  explicit BasicAdaLomo(std::vector<BasicParameter<T>> parameters, const AdaLomoConfig& config = {})
      : parameters_(std::move(parameters)), config_(config) {
    if (config.eps.size() != 2 || !(config.learning_rate >= 0) || !(config.clip_threshold > 0) ||
        !(config.decay_rate < 0) || !(config.weight_decay >= 0))
      throw ValueError(concat("AdaLomo: learning rate ", config.learning_rate, ", clip_threshold ",
                              config.clip_threshold, ", decay_rate ", config.decay_rate,
                              ", weight_decay ", config.weight_decay, " and ", config.eps.size(),
                              " eps (2 expected)"));
  }

  /// One step from gradients that the parameters hold.
  void step(double gradient_scale = 1) {
    for (const auto& p : parameters_)
      if (p.trainable() && p.grad()) update_now(p, p.grad(), gradient_scale);
  }
  void zero_grad() {
    for (const auto& p : parameters_) p.zero_grad();
  }
  double learning_rate() const { return config_.learning_rate; }
  void set_learning_rate(double value) { config_.learning_rate = value; }
  const Moment& second_moment(const BasicParameter<T>& parameter) {
    return moments_[parameter.id()];
  }
  const AdaLomoConfig& config() const { return config_; }

 private:
  void update_now(const BasicParameter<T>& parameter, const BasicTensor<T>& gradient,
                  double gradient_scale) override {
    const auto& value = parameter.value();
    const bool matrix = value.rank() > 1;
    const auto rows = static_cast<std::size_t>(matrix ? value.dim(0) : 1);
    const std::size_t columns =
        static_cast<std::size_t>(value.size()) / std::max<std::size_t>(1, rows);
    auto& m = moments_[parameter.id()];
    if (m.row.size() != (matrix ? rows : columns)) {
      m = {};
      m.row.assign(matrix ? rows : columns, 0);
      m.column.assign(matrix ? columns : 0, 0);
    }
    ++m.steps;
    const double beta = 1 - std::pow(static_cast<double>(m.steps), config_.decay_rate);
    const auto g = [&](std::size_t i) {
      return gradient_scale * static_cast<double>(gradient[static_cast<Index>(i)]);
    };
    for (double& v : m.row) v *= beta;
    for (double& v : m.column) v *= beta;
    for (std::size_t i = 0; i < rows * columns; ++i) {
      const double square = (1 - beta) * (g(i) * g(i) + config_.eps[0]);
      if (matrix) {
        m.row[i / columns] += square / static_cast<double>(columns);
        m.column[i % columns] += square / static_cast<double>(rows);
      } else {
        m.row[i] += square;
      }
    }
    double mean = 0, size = 0, length = 0;
    for (const double v : m.row) mean += v / static_cast<double>(m.row.size());
    const auto direction = [&](std::size_t i) {
      return g(i) /
             std::sqrt(matrix ? m.row[i / columns] * m.column[i % columns] / mean : m.row[i]);
    };
    const auto count = static_cast<double>(rows * columns);
    for (std::size_t i = 0; i < rows * columns; ++i) {
      const double u = direction(i), p = static_cast<double>(value[static_cast<Index>(i)]);
      length += u * u / count;
      size += p * p / count;
    }
    const double rate = config_.learning_rate * std::max(config_.eps[1], std::sqrt(size));
    const double shrink = std::max(1.0, std::sqrt(length) / config_.clip_threshold);
    for (std::size_t i = 0; i < rows * columns; ++i) {
      T& p = value[static_cast<Index>(i)];
      p = static_cast<T>((1 - rate * config_.weight_decay) * static_cast<double>(p) -
                         rate * direction(i) / shrink);
    }
  }

  std::vector<BasicParameter<T>> parameters_;
  std::map<const void*, Moment> moments_;
  AdaLomoConfig config_;
};

using FusedUpdates = BasicFusedUpdates<float>;
using Lomo = BasicLomo<float>;
using AdaLomo = BasicAdaLomo<float>;

}  // namespace graft::inline v0_1
