#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/table_lookup.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Configuration of SketchTune.
struct SketchTuneConfig {
  Index bits = 4;
  Index groups_per_row = 1;
  double importance_power = 1;  ///< of the inverse Hessian's diagonal, where there are statistics
  double damping = 0.01;        ///< of the Hessian, a share of the mean of its diagonal
  Index iterations = 20;        ///< of k-means
  bool error_compensation = false;  ///< later columns make up for the error of earlier ones (GPTQ)
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SKETCHTUNE";

  template <class Visitor>
  void fields(Visitor& v) {
    v("bits", bits);
    v("groups_per_row", groups_per_row);
    v("importance_power", importance_power);
    v("damping", damping);
    v("iterations", iterations);
    v("error_compensation", error_compensation);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for numbers out of range.
  void validate() const {
    if (bits < 1 || bits > 8 || groups_per_row < 1 || iterations < 0 || damping < 0)
      throw ValueError(concat("SketchTune: bits ", bits, " (1 to 8), groups_per_row ",
                              groups_per_row, ", iterations ", iterations, ", damping ", damping));
  }
};

/// H = 2 XᵀX + damping · mean(diag) · 1, from XᵀX: [in, in] (any multiple of it gives the same
/// tables); inverted.
template <std::floating_point T>
BasicTensor<T> sketch_inverse_hessian(const BasicTensor<T>& gram, double damping) {
  const Index in = gram.rows();
  auto h = gram.clone();
  double mean = 0;
  for (T& v : h) v *= T{2};
  for (Index i = 0; i < in; ++i) mean += static_cast<double>(h(i, i)) / static_cast<double>(in);
  for (Index i = 0; i < in; ++i) h(i, i) += static_cast<T>(damping * mean);
  return inverse(h);
}
/// h[j] = (H⁻¹[j, j])^(−power)
template <std::floating_point T>
std::vector<double> sketch_importance(const BasicTensor<T>& inverse_hessian, double power) {
  std::vector<double> h;
  for (Index j = 0; j < inverse_hessian.rows(); ++j)
    h.push_back(std::pow(static_cast<double>(inverse_hessian(j, j)), -power));
  return h;
}

/// A weight as small tables: W[o, j] ≈ table[o, ⌊j groups / in⌋, codes[o, j]].
template <std::floating_point T>
struct Sketch {
  BasicTensor<T> table;             ///< [out, groups, entries]
  std::vector<std::uint8_t> codes;  ///< [out, in]
  double loss = 0;                  ///< Σ h[j] (W − table)²
};

namespace detail {

/// Number of the entry that is nearest to a value, the first of equally near ones.
inline std::size_t nearest_entry(std::span<const double> table, double value) {
  std::size_t best = 0;
  for (std::size_t k = 1; k < table.size(); ++k)
    if (std::abs(value - table[k]) < std::abs(value - table[best])) best = k;
  return best;
}
/// One table by weighted k-means; returns Σ h (w − table)² of the last choice.
inline double learn_table(std::span<const double> w, std::span<const double> h,
                          std::span<double> table, Index iterations,
                          std::span<std::uint8_t> codes) {
  std::vector<double> sums(table.size()), weights(table.size());
  for (Index t = 0; t < iterations; ++t) {
    std::fill(sums.begin(), sums.end(), 0.0);
    std::fill(weights.begin(), weights.end(), 0.0);
    for (std::size_t j = 0; j < w.size(); ++j) {
      const auto k = nearest_entry(table, w[j]);
      sums[k] += h[j] * w[j];
      weights[k] += h[j];
    }
    for (std::size_t k = 0; k < table.size(); ++k)
      if (weights[k] > 0) table[k] = sums[k] / weights[k];
  }
  double loss = 0;
  for (std::size_t j = 0; j < w.size(); ++j) {
    const auto k = nearest_entry(table, w[j]);
    codes[j] = static_cast<std::uint8_t>(k);
    loss += h[j] * (w[j] - table[k]) * (w[j] - table[k]);
  }
  return loss;
}

}  // namespace detail

/// Learns tables by weighted k-means: `iterations` times each weight takes the nearest entry (of
/// two the first) and each entry becomes the weighted mean of its weights (an unused one stays),
/// then the weights choose once more. `importance`: one number a column, empty: 1. `start`: the
/// first tables, empty: quantiles of each group. @throws ShapeError for sizes that do not fit
template <std::floating_point T>
Sketch<T> learn_sketch(const BasicTensor<T>& weight, const SketchTuneConfig& config,
                       const std::vector<double>& importance = {},
                       const BasicTensor<T>& start = {}) {
  config.validate();
  const Index out = weight.rows(), in = weight.cols(), groups = config.groups_per_row;
  const Index entries = Index{1} << config.bits;
  const Shape shape{out, groups, entries};
  if ((!importance.empty() && std::ssize(importance) != in) || (start && start.shape() != shape) ||
      groups > in)
    throw ShapeError(concat("learn_sketch: ", importance.size(), " importances and tables ",
                            start.shape().text(), " for a weight ", weight.shape().text(), " in ",
                            groups, " groups a row"));
  const auto size = [](Index n) { return static_cast<std::size_t>(n); };
  Sketch<T> sketch{BasicTensor<T>::empty(shape), std::vector<std::uint8_t>(size(out * in)), 0};
  const std::vector<double> h =
      importance.empty() ? std::vector<double>(size(in), 1.0) : importance;
  std::vector<double> table(size(entries)), w(size(in)), sorted;
  for (Index o = 0; o < out; ++o) {
    std::copy_n(weight.data() + o * in, in, w.begin());
    for (Index g = 0; g < groups; ++g) {
      const Index first = (g * in + groups - 1) / groups;
      const Index count = ((g + 1) * in + groups - 1) / groups - first;
      const auto part = std::span<const double>(w).subspan(size(first), size(count));
      T* const found = sketch.table.data() + (o * groups + g) * entries;
      if (start) {
        std::copy_n(start.data() + (o * groups + g) * entries, entries, table.begin());
      } else {
        sorted.assign(part.begin(), part.end());
        std::sort(sorted.begin(), sorted.end());
        for (Index k = 0; k < entries; ++k)
          table[size(k)] = sorted[size((2 * k + 1) * count / (2 * entries))];
      }
      sketch.loss += detail::learn_table(
          part, std::span<const double>(h).subspan(size(first), size(count)), table,
          config.iterations,
          std::span<std::uint8_t>(sketch.codes).subspan(size(o * in + first), size(count)));
      std::transform(table.begin(), table.end(), found, [](double v) { return static_cast<T>(v); });
    }
  }
  return sketch;
}

/// Chooses the codes again, column after column, each time moving the columns that follow so that
/// they make up for the error: w[j'] −= (w[j] − ŵ[j]) H⁻¹[j, j'] / H⁻¹[j, j], H of the columns that
/// are left (Frantar et al. 2022, GPTQ). The tables stay.
template <std::floating_point T>
void compensate_errors(Sketch<T>& sketch, const BasicTensor<T>& weight,
                       const BasicTensor<T>& inverse_hessian) {
  const Index out = weight.rows(), in = weight.cols();
  const Index groups = sketch.table.dim(1), entries = sketch.table.dim(2);
  std::vector<double> w(weight.begin(), weight.end());
  std::vector<double> g(inverse_hessian.begin(), inverse_hessian.end());
  const auto at = [in](Index i, Index j) { return static_cast<std::size_t>(i * in + j); };
  for (Index j = 0; j < in; ++j) {
    const double pivot = g[at(j, j)];
    for (Index o = 0; o < out; ++o) {
      const T* table = sketch.table.data() + (o * groups + j * groups / in) * entries;
      Index best = 0;
      for (Index k = 1; k < entries; ++k)
        if (std::abs(w[at(o, j)] - static_cast<double>(table[k])) <
            std::abs(w[at(o, j)] - static_cast<double>(table[best])))
          best = k;
      sketch.codes[at(o, j)] = static_cast<std::uint8_t>(best);
      const double error = w[at(o, j)] - static_cast<double>(table[best]);
      for (Index i = j + 1; i < in; ++i) w[at(o, i)] -= error * g[at(j, i)] / pivot;
    }
    // The inverse without row and column j.
    for (Index i = j + 1; i < in; ++i) {
      const double factor = g[at(i, j)] / pivot;
      for (Index k = j + 1; k < in; ++k) g[at(i, k)] -= factor * g[at(j, k)];
    }
  }
}

/// SketchTune: y = x Ŵᵀ + b, Ŵ[o, j] = V[o, ⌊j G / in⌋, c[o, j]]: each row of the weight is a table
/// of 2^b values for each of its G groups and codes of b bits, and the tables are trained.
///
/// V: [out, G, 2^b]; trained: out G 2^b. The tables are learned from the frozen weight when an
/// adapter is made, by k-means weighted with the calibration's covariance where there is one. Not
/// the identity at the start (the sketch is near the weight); merges. Ŵ is looked up again in the
/// backward pass. The codes never change; they are made again from the weight when an adapter is
/// loaded, and are in its file where calibration decided them. Deviation from the paper: codes are
/// kept in bytes. Source: Zhang et al. 2024 (arXiv:2410.06364), §3. Tensor: sketch (and codes).
template <std::floating_point T>
class BasicSketchTune {
 public:
  using Scalar = T;
  using Config = SketchTuneConfig;

  static MethodInfo info() {
    return {.peft_type = "SKETCHTUNE",
            .name = "SketchTune",
            .family = "quantized",
            .paper = "arXiv:2410.06364",
            .sites = "linear",
            .parameters = "out groups_per_row 2^bits",
            .in_peft = false,
            .identity_at_init = false};
  }

  BasicSketchTune(const SketchTuneConfig& config, const LinearSiteInfo<T>& site,
                  InitContext<T>& context)
      : in_(site.in_features) {
    config.validate();
    const auto w = site.weight();
    BasicTensor<T> inverse_hessian;
    if (context.calibration != nullptr && !context.loading)
      if (const auto it = context.calibration->find(site.path);
          it != context.calibration->end() && it->second.covariance)
        inverse_hessian = sketch_inverse_hessian(it->second.covariance, config.damping);
    if (config.error_compensation && !inverse_hessian && !context.loading)
      throw ValueError(concat("SketchTune: error_compensation at ", site.path,
                              " needs the covariance of calibration data"));
    auto sketch =
        learn_sketch(w, config,
                     inverse_hessian ? sketch_importance(inverse_hessian, config.importance_power)
                                     : std::vector<double>());
    if (inverse_hessian && config.error_compensation) compensate_errors(sketch, w, inverse_hessian);
    saves_codes_ = static_cast<bool>(inverse_hessian);
    table_ = BasicParameter<T>(sketch.table);
    set_codes(std::move(sketch.codes));
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicSketchTune(const SketchTuneConfig& config, const L& base)
      : BasicSketchTune(config, site_info(base), StandaloneInit<T>(0).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return detail::effective_weight(base, x,
                                    [table = table_, codes = codes_, in = in_](BasicTape<T>& tape) {
                                      return table_lookup(tape.parameter(table), codes, in);
                                    });
  }
  /// Which entry each weight reads, row-major. @throws ShapeError for another number of codes,
  /// ValueError for one beyond the table
  void set_codes(std::vector<std::uint8_t> codes) {
    const Index entries = table_.shape()[2];
    if (std::ssize(codes) != table_.shape()[0] * in_)
      throw ShapeError(
          concat("SketchTune: ", codes.size(), " codes for [", table_.shape()[0], ", ", in_, "]"));
    for (const auto code : codes)
      if (static_cast<Index>(code) >= entries)
        throw ValueError(
            concat("SketchTune: code ", static_cast<int>(code), " of a table of ", entries));
    index_ = std::make_shared<IndexTensor>();
    if (saves_codes_) {
      index_->shape = {table_.shape()[0], in_};
      index_->type = IndexTensor::Type::u8;
      index_->values.assign(codes.begin(), codes.end());
    }
    codes_ = std::make_shared<const std::vector<std::uint8_t>>(std::move(codes));
  }
  const std::vector<std::uint8_t>& codes() const { return *codes_; }
  void before_load(const CheckpointShapes& shapes) {
    saves_codes_ = shapes("codes") != nullptr;
    set_codes(std::vector<std::uint8_t>(*codes_));
  }
  void after_load() {
    if (!saves_codes_) return;
    std::vector<std::uint8_t> codes;
    for (const std::int64_t code : index_->values) {
      if (code < 0 || code > 255) throw ValueError(concat("SketchTune: code ", code));
      codes.push_back(static_cast<std::uint8_t>(code));
    }
    set_codes(std::move(codes));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(saves_codes_ ? 2 : 1);
    list[0].name = "sketch";
    list[0].parameter = table_;
    if (saves_codes_) {
      list[1].name = "codes";
      list[1].index = index_;
    }
    return list;
  }

 private:
  Index in_;
  BasicParameter<T> table_;
  std::shared_ptr<const std::vector<std::uint8_t>> codes_;
  std::shared_ptr<IndexTensor> index_;  // the same for files, where they hold it
  bool saves_codes_ = false;
};

using SketchTune = BasicSketchTune<float>;

}  // namespace graft::inline v0_1
