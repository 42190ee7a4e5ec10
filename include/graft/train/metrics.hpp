#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

/// Numbers that a training run reports.
namespace graft::inline v0_1 {

/// How well a model does on rows, as means over what is predicted: tokens of a language model, else
/// rows (or tokens) with a label.
struct Evaluation {
  double loss = 0;
  double perplexity = 0;  ///< e^loss
  double accuracy = 0;    ///< share whose likeliest prediction was right; 0 for regression
  Index count = 0;        ///< number of predictions
};

/// How often each class was taken for each: rows are what is true, columns what was predicted.
class ConfusionMatrix {
 public:
  explicit ConfusionMatrix(Index classes)
      : classes_(classes), counts_(static_cast<std::size_t>(classes * classes), 0) {}

  Index classes() const { return classes_; }
  /// Errors: ValueError for a class that does not exist.
  void add(Index truth, Index predicted) { ++counts_[place(truth, predicted)]; }
  Index count(Index truth, Index predicted) const { return counts_[place(truth, predicted)]; }
  Index total() const { return std::accumulate(counts_.begin(), counts_.end(), Index{0}); }
  Index of_class(Index truth) const {
    Index sum = 0;
    for (Index c = 0; c < classes_; ++c) sum += count(truth, c);
    return sum;
  }
  Index predicted_as(Index predicted) const {
    Index sum = 0;
    for (Index c = 0; c < classes_; ++c) sum += count(c, predicted);
    return sum;
  }
  /// Shares; 0 where there is nothing to divide by.
  double accuracy() const {
    Index right = 0;
    for (Index c = 0; c < classes_; ++c) right += count(c, c);
    return share(right, total());
  }
  double precision(Index c) const { return share(count(c, c), predicted_as(c)); }
  double recall(Index c) const { return share(count(c, c), of_class(c)); }
  /// 2 · precision · recall / (precision + recall)
  double f1(Index c) const { return share(2 * count(c, c), of_class(c) + predicted_as(c)); }
  /// Mean of f1 over the classes that occur or were predicted.
  double macro_f1() const {
    double sum = 0;
    Index seen = 0;
    for (Index c = 0; c < classes_; ++c)
      if (of_class(c) + predicted_as(c) > 0) {
        sum += f1(c);
        ++seen;
      }
    return sum / static_cast<double>(std::max<Index>(seen, 1));
  }

 private:
  static double share(Index part, Index whole) {
    return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
  }
  std::size_t place(Index truth, Index predicted) const {
    if (truth < 0 || truth >= classes_ || predicted < 0 || predicted >= classes_)
      throw ValueError(
          concat("confusion matrix: class ", truth, " or ", predicted, " of ", classes_));
    return static_cast<std::size_t>(truth * classes_ + predicted);
  }

  Index classes_;
  std::vector<Index> counts_;
};

/// How far predicted numbers are from the true ones.
struct RegressionScore {
  Index count = 0;
  double mean_squared_error = 0;
  double mean_absolute_error = 0;
  double pearson = 0;  ///< correlation, in [-1, 1]; 0 where one of the two does not vary
};

/// Errors: ValueError for lists of different lengths.
inline RegressionScore regression_score(std::span<const float> truth,
                                        std::span<const float> predicted) {
  if (truth.size() != predicted.size())
    throw ValueError(concat("regression score: ", predicted.size(), " predictions for ",
                            truth.size(), " targets"));
  RegressionScore score;
  score.count = std::ssize(truth);
  if (truth.empty()) return score;
  const auto n = static_cast<double>(truth.size());
  const double mean_t = std::accumulate(truth.begin(), truth.end(), 0.0) / n,
               mean_p = std::accumulate(predicted.begin(), predicted.end(), 0.0) / n;
  double tt = 0, pp = 0, tp = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double t = truth[i], p = predicted[i];
    score.mean_squared_error += (t - p) * (t - p) / n;
    score.mean_absolute_error += std::abs(t - p) / n;
    tt += (t - mean_t) * (t - mean_t);
    pp += (p - mean_p) * (p - mean_p);
    tp += (t - mean_t) * (p - mean_p);
  }
  if (tt > 0 && pp > 0) score.pearson = tp / std::sqrt(tt * pp);
  return score;
}

/// What happened in one step.
struct StepReport {
  Index step = 0;  ///< from 1
  Index steps = 0;
  double loss = 0;       ///< of the predictions, without auxiliary terms
  double auxiliary = 0;  ///< the auxiliary terms
  double learning_rate = 0;
  double gradient_norm = 0;  ///< before clipping
  double seconds = 0;
  double tokens_per_second = 0;  ///< without padding; rows a second where there are no tokens
  double seconds_left = 0;       ///< by the mean of the last steps, without evaluations
};

/// An evaluation and when it was; step 0 is before training.
struct EvaluationReport {
  Index step = 0;
  Evaluation result;
};

/// What a run has seen so far, the part before a checkpoint included.
struct TrainHistory {
  std::vector<StepReport> steps;
  std::vector<EvaluationReport> evaluations;
};

}  // namespace graft::inline v0_1
