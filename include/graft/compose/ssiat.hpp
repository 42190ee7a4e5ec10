#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "graft/adapters/prompts/unit_rows.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/compose/class_statistics.hpp"

/// SSIAT: one adapter that is tuned on every task without constraints; means of old classes follow
/// the features, and a classifier is trained on samples of class Gaussians. Task t trains adapter
/// and a cosine classifier of its own classes (`cosine_logits`), then shifts the old means, then
/// trains one classifier of all classes on `sample_class(statistics, 256, sampling_scale(…))`.
/// Source: Tan et al. 2024, arXiv:2403.19979.
namespace graft::inline v0_1 {

struct SsiatConfig {
  double sigma = 4;
  bool normalise_distance = false;  ///< features and means of length one inside of the distance

  static constexpr const char* kPeftType = "SSIAT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("sigma", sigma);
    v("normalise_distance", normalise_distance);
  }
};

/// s · cos(f, w_c) of features [rows, d] and class vectors [classes, d]; the logit of a row's label
/// is lowered by s · margin.
template <std::floating_point T>
BasicVar<T> cosine_logits(const BasicVar<T>& features, const BasicVar<T>& weight, double s = 20,
                          double margin = 0, std::span<const std::int64_t> labels = {}) {
  auto y = scale(matmul(unit_rows(features), unit_rows(weight), Transpose::no, Transpose::yes),
                 static_cast<T>(s));
  if (margin == 0 || labels.empty()) return y;
  if (std::ssize(labels) != y.rows())
    throw ShapeError(concat("cosine_logits: ", labels.size(), " labels for ", y.rows(), " rows"));
  auto lowered = BasicTensor<T>::zeros(y.shape());
  for (Index r = 0; r < y.rows(); ++r) {
    const auto label = static_cast<Index>(labels[static_cast<std::size_t>(r)]);
    if (label >= 0 && label < y.cols()) lowered(r, label) = static_cast<T>(-s * margin);
  }
  return add(y, y.tape().constant(lowered));
}

/// w_ci = exp(−‖f_i − μ_c‖² / 2σ²) + 1e-5 of features before the task, [n, d], and means, [classes,
/// d]: [classes, n].
template <std::floating_point T>
BasicTensor<T> shift_weights(const BasicTensor<T>& features, const BasicTensor<T>& means,
                             const SsiatConfig& config = {}) {
  if (!(config.sigma > 0)) throw ValueError(concat("SSIAT: sigma ", config.sigma));
  const Index n = features.rows(), classes = means.rows(), d = means.cols();
  if (features.cols() != d)
    throw ShapeError(concat("shift_weights: features ", features.shape().text(), " and means ",
                            means.shape().text()));
  const auto length = [&](const T* row) {
    if (!config.normalise_distance) return 1.0;
    double square = 0;
    for (Index j = 0; j < d; ++j)
      square += static_cast<double>(row[j]) * static_cast<double>(row[j]);
    return std::max(std::sqrt(square), 1e-12);
  };
  auto weights = BasicTensor<T>::empty({classes, n});
  for (Index c = 0; c < classes; ++c)
    for (Index i = 0; i < n; ++i) {
      const T *f = features.data() + i * d, *m = means.data() + c * d;
      const double of_f = length(f), of_m = length(m);
      double square = 0;
      for (Index j = 0; j < d; ++j) {
        const double by = static_cast<double>(f[j]) / of_f - static_cast<double>(m[j]) / of_m;
        square += by * by;
      }
      weights(c, i) = static_cast<T>(std::exp(-square / (2 * config.sigma * config.sigma)) + 1e-5);
    }
  return weights;
}

/// μ_c + Σ_i w_ci δ_i / Σ_i w_ci with the shifts δ_i = f_new − f_old of the task's samples, [n, d].
template <std::floating_point T>
BasicTensor<T> shift_means(const BasicTensor<T>& means, const BasicTensor<T>& weights,
                           const BasicTensor<T>& shift) {
  if (weights.rows() != means.rows() || weights.cols() != shift.rows() ||
      shift.cols() != means.cols())
    throw ShapeError(concat("shift_means: means ", means.shape().text(), ", weights ",
                            weights.shape().text(), ", shifts ", shift.shape().text()));
  auto result = means.clone();
  for (Index c = 0; c < means.rows(); ++c) {
    double total = 0;
    for (Index i = 0; i < shift.rows(); ++i) total += static_cast<double>(weights(c, i));
    for (Index j = 0; j < means.cols(); ++j) {
      double sum = 0;
      for (Index i = 0; i < shift.rows(); ++i)
        sum += static_cast<double>(weights(c, i)) * static_cast<double>(shift(i, j));
      result(c, j) = static_cast<T>(static_cast<double>(means(c, j)) + sum / total);
    }
  }
  return result;
}

/// κ = 0.9 + 0.1 (t + 1) / (T + 1): what the mean of a class of task t is multiplied by when it is
/// sampled after T tasks.
inline double sampling_scale(Index task, Index tasks) {
  return 0.9 + 0.1 * static_cast<double>(task + 1) / static_cast<double>(tasks + 1);
}

}  // namespace graft::inline v0_1
