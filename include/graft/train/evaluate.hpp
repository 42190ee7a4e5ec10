#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "graft/train/dataset.hpp"
#include "graft/train/metrics.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// Predictions that the loss of a batch is the mean of.
template <std::floating_point T>
Index predictions(const models::BasicModel<T>& model, const models::BasicBatch<T>& batch) {
  const bool tokens = model.predicts_tokens();
  std::vector<T> weights;
  const auto labels = tokens ? model.predicted_tokens(batch, weights) : batch.labels;
  const auto count = static_cast<Index>(labels.size()) -
                     std::count(labels.begin(), labels.end(), text::kIgnoredLabel);
  return count > 0 || tokens ? count : batch.batch;  // regression has targets instead of labels
}

/// Outputs of the head with a true class: rows [count, classes] and their labels. Of a model with
/// one output a token they are the tokens that have a label, else all rows.
template <std::floating_point T>
std::pair<BasicTensor<T>, std::vector<std::int64_t>> labelled_outputs(
    const BasicTensor<T>& logits, const models::BasicBatch<T>& batch) {
  const Index classes = logits.cols(), tokens = batch.seq_len;
  if (logits.rank() < 3) return {logits, batch.labels};
  if (std::ssize(batch.labels) != batch.batch * tokens)
    throw ShapeError(concat("outputs of tokens: ", batch.labels.size(), " labels for ", batch.batch,
                            " x ", tokens, " tokens"));
  const Index extra = logits.dim(1) - tokens;  // virtual tokens come first
  std::vector<T> values;
  std::vector<std::int64_t> labels;
  for (Index b = 0; b < batch.batch; ++b)
    for (Index t = 0; t < tokens; ++t) {
      const auto label = batch.labels[static_cast<std::size_t>(b * tokens + t)];
      if (label == text::kIgnoredLabel) continue;
      labels.push_back(label);
      const auto row = logits.begin() + ((b * (tokens + extra)) + extra + t) * classes;
      values.insert(values.end(), row, row + classes);
    }
  const auto count = std::ssize(labels);
  return {BasicTensor<T>::from(std::move(values), {count, classes}), std::move(labels)};
}

template <std::floating_point T>
Index right_rows(const BasicTensor<T>& logits, const models::BasicBatch<T>& batch) {
  const auto [rows, labels] = labelled_outputs(logits, batch);
  Index right = 0;
  const Index classes = rows.cols();
  for (Index i = 0; i < rows.rows(); ++i) {
    const auto row = rows.begin() + i * classes;
    if (std::max_element(row, row + classes) - row == labels[static_cast<std::size_t>(i)]) ++right;
  }
  return right;
}

}  // namespace detail

/// Loss and accuracy over all rows, without dropout, with the adapters that are active. Batches
/// follow the order of the rows. Nothing if `stop` became true in between.
/// @param losses  takes the loss of every predicted token, in their order (of models that predict
/// tokens)
template <std::floating_point T>
std::optional<Evaluation> evaluate(const models::BasicModel<T>& model, const BasicDataset<T>& data,
                                   Index batch_size, const std::function<bool()>& stop = {},
                                   std::vector<T>* losses = nullptr) {
  if (batch_size < 1) throw ValueError(concat("evaluate: batch size ", batch_size));
  Evaluation result;
  double total = 0;
  Index right = 0;
  std::vector<Index> rows;
  for (Index first = 0; first < data.rows; first += batch_size) {
    if (stop && stop()) return std::nullopt;
    rows.resize(static_cast<std::size_t>(std::min(batch_size, data.rows - first)));
    std::iota(rows.begin(), rows.end(), first);
    const auto batch = data.batch(rows);
    BasicTape<T> tape({.gradients = false, .training = false});
    if (model.predicts_tokens()) {
      std::vector<unsigned char> correct;
      std::vector<T> own;
      model.token_loss(tape, batch, &correct, &own);
      for (const T loss : own) total += static_cast<double>(loss);
      for (const unsigned char c : correct) right += c;
      result.count += static_cast<Index>(own.size());
      if (losses != nullptr) losses->insert(losses->end(), own.begin(), own.end());
    } else {
      const Index count = detail::predictions(model, batch);
      total += static_cast<double>(model.loss(tape, batch).item()) * static_cast<double>(count);
      const auto logits = model.logits(tape, batch).value();
      if (logits.cols() > 1) right += detail::right_rows(logits, batch);
      result.count += count;
    }
  }
  const auto n = static_cast<double>(std::max<Index>(1, result.count));
  result.loss = total / n;
  result.perplexity = std::exp(result.loss);
  result.accuracy = static_cast<double>(right) / n;
  return result;
}

/// Output of the head for every row, [rows, classes], for every token that has a label where the
/// model has one output a token, or for every token that is to be predicted; without dropout, with
/// the adapters that are active. Nothing if `stop` became true in between.
template <std::floating_point T>
std::optional<BasicTensor<T>> predict(const models::BasicModel<T>& model,
                                      const BasicDataset<T>& data, Index batch_size,
                                      const std::function<bool()>& stop = {}) {
  if (batch_size < 1) throw ValueError(concat("predict: batch size ", batch_size));
  std::vector<T> all;
  Index classes = 0;
  std::vector<Index> rows;
  for (Index first = 0; first < data.rows; first += batch_size) {
    if (stop && stop()) return std::nullopt;
    rows.resize(static_cast<std::size_t>(std::min(batch_size, data.rows - first)));
    std::iota(rows.begin(), rows.end(), first);
    BasicTape<T> tape({.gradients = false, .training = false});
    const auto batch = data.batch(rows);
    const bool tokens = model.predicts_tokens();
    const auto y = (tokens ? model.token_logits(tape, batch) : model.logits(tape, batch)).value();
    if (!tokens && y.rank() < 3 && y.rows() != std::ssize(rows))
      throw ShapeError(concat("predict: ", y.rows(), " outputs for ", rows.size(), " rows"));
    const auto outputs = tokens ? y : detail::labelled_outputs(y, batch).first;
    classes = y.cols();
    all.insert(all.end(), outputs.begin(), outputs.end());
  }
  const Index count = classes == 0 ? 0 : std::ssize(all) / classes;
  return BasicTensor<T>::from(std::move(all), {count, classes});
}

/// The likeliest class of each row of logits [rows, classes].
template <std::floating_point T>
std::vector<Index> likeliest(const BasicTensor<T>& logits) {
  std::vector<Index> classes;
  for (Index i = 0; i < logits.rows(); ++i) {
    const auto row = logits.begin() + i * logits.cols();
    classes.push_back(std::max_element(row, row + logits.cols()) - row);
  }
  return classes;
}

/// Confusion matrix of logits [rows, classes] against labels; kIgnoredLabel does not count.
template <std::floating_point T>
ConfusionMatrix confusion(const BasicTensor<T>& logits, std::span<const std::int64_t> labels) {
  if (static_cast<Index>(labels.size()) != logits.rows())
    throw ShapeError(concat("confusion: ", labels.size(), " labels for ", logits.rows(), " rows"));
  ConfusionMatrix matrix(logits.cols());
  const auto classes = likeliest(logits);
  for (std::size_t i = 0; i < labels.size(); ++i)
    if (labels[i] != text::kIgnoredLabel) matrix.add(static_cast<Index>(labels[i]), classes[i]);
  return matrix;
}

}  // namespace graft::inline v0_1
