#pragma once

#include <vector>

#include "graft/base/types.hpp"

/// Numbers that a training run reports.
namespace graft {

/// How well a model does on rows, as means over what is predicted: tokens of a language model, else
/// rows (or tokens) with a label.
struct Evaluation {
  double loss = 0;
  double perplexity = 0;  ///< e^loss
  double accuracy = 0;    ///< share whose likeliest prediction was right; 0 for regression
  Index count = 0;        ///< number of predictions
};

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

}  // namespace graft
