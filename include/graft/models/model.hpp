#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/autograd/ops/loss.hpp"
#include "graft/autograd/training_passes.hpp"
#include "graft/layers/forward_context.hpp"
#include "graft/layers/sites.hpp"
#include "graft/models/batch.hpp"

namespace graft::inline v0_1::models {

/// A frozen network with named adapter sites. Not movable: sites keep their addresses.
template <std::floating_point T>
class BasicModel {
 public:
  using Scalar = T;

  BasicModel() = default;
  BasicModel(const BasicModel&) = delete;
  BasicModel& operator=(const BasicModel&) = delete;
  virtual ~BasicModel() = default;

  BasicSiteTable<T>& sites() { return sites_; }
  const BasicSiteTable<T>& sites() const { return sites_; }
  const ModelInfo& info() const { return sites_.info; }

  /// The name in files of a module that adapters know by `path`.
  virtual std::string file_name(const std::string& path) const { return path; }

  /// What the head gives: a causal model [batch, tokens (virtual ones first), vocabulary], a
  /// classifier [batch, classes] …
  virtual BasicVar<T> logits(BasicTape<T>& tape, const BasicBatch<T>& batch) const = 0;
  /// Loss against the labels of the batch, a scalar.
  virtual BasicVar<T> loss(BasicTape<T>& tape, const BasicBatch<T>& batch) const = 0;
  /// The same for logits that are there already.
  virtual BasicVar<T> loss_of(const BasicVar<T>& logits, const BasicBatch<T>& batch) const = 0;

  /// True if `loss` is the mean over the tokens that are to be predicted. The next four are for
  /// such models.
  virtual bool predicts_tokens() const { return false; }
  /// What each position has to predict, virtual ones included: [batch, virtual tokens + tokens],
  /// -100 for nothing; and the factor of the loss of each (empty: one).
  virtual std::vector<std::int64_t> predicted_tokens(const BasicBatch<T>&, std::vector<T>&) const {
    throw ValueError("the model predicts no tokens");
  }
  /// The same as `loss`, and for each predicted token whether the likeliest token was right, and
  /// its loss; null: not wanted. The logits of all tokens are never there at once.
  virtual BasicVar<T> token_loss(BasicTape<T>&, const BasicBatch<T>&, std::vector<unsigned char>*,
                                 std::vector<T>*) const {
    throw ValueError("the model predicts no tokens");
  }
  /// Logits of the positions that have a token to predict: [predictions, vocabulary].
  virtual BasicVar<T> token_logits(BasicTape<T>&, const BasicBatch<T>&) const {
    throw ValueError("the model predicts no tokens");
  }
  /// What a training step may run; tape and batch have to outlive it.
  TrainingPasses<T> passes(BasicTape<T>& tape, const BasicBatch<T>& batch) const {
    return {[this, &tape, &batch] { return loss(tape, batch); },
            [this, &tape, &batch] { return logits(tape, batch); },
            [this, &batch](const BasicVar<T>& y) { return loss_of(y, batch); }};
  }

 protected:
  /// The labels of a batch, [batch, virtual tokens of `prompt` first], kIgnoredLabel at these.
  static std::vector<std::int64_t> labels_behind(const BasicPromptSite<T>& prompt,
                                                 const BasicBatch<T>& batch) {
    const auto counts =
        prompt.virtual_tokens(batch.row_adapters, batch.batch, static_cast<bool>(batch.visual));
    const Index extra = *std::max_element(counts.begin(), counts.end());
    const Index tokens = extra + batch.seq_len;
    std::vector<std::int64_t> labels(static_cast<std::size_t>(batch.batch * tokens), kIgnoredLabel);
    for (Index b = 0; b < batch.batch; ++b)
      std::copy_n(batch.labels.begin() + b * batch.seq_len, batch.seq_len,
                  labels.begin() + b * tokens + extra);
    return labels;
  }
  /// Positions that have a token to predict, virtual ones counted.
  std::vector<Index> predicting_positions(const BasicBatch<T>& batch) const {
    std::vector<T> weights;
    const auto labels = predicted_tokens(batch, weights);
    std::vector<Index> positions;
    for (std::size_t i = 0; i < labels.size(); ++i)
      if (labels[i] != kIgnoredLabel) positions.push_back(static_cast<Index>(i));
    return positions;
  }

  BasicSiteTable<T> sites_;
};

/// A width of a stack of blocks beside a model. @throws ValueError if it is no whole number
inline Index reduced(Index width, Index reduction) {
  if (reduction < 1 || width % reduction != 0)
    throw ValueError(concat("stack of blocks: a reduction of ", reduction,
                            " does not divide the width ", width));
  return width / reduction;
}

/// Puts what a batch is about on a tape, for the adapters that ask.
template <std::floating_point T>
std::shared_ptr<const ForwardContext> set_forward_context(BasicTape<T>& tape,
                                                          const BasicBatch<T>& batch,
                                                          std::vector<std::int32_t> past_ids = {},
                                                          std::vector<Index> prompt_lengths = {}) {
  auto context = std::make_shared<ForwardContext>();
  context->batch = batch.batch;
  context->seq_len = batch.seq_len;
  context->ids = batch.ids;
  context->past_ids = std::move(past_ids);
  context->token_mask = batch.mask;
  context->task_ids = batch.task_ids;
  context->modality = batch.modality;
  context->instruction_mask = batch.instruction_mask;
  if (batch.visual) {
    context->visual.assign(batch.visual.begin(), batch.visual.end());
    context->visual_width = batch.visual.cols();
  }
  if (batch.labels.size() == batch.ids.size()) context->labels = batch.labels;
  context->prompt_lengths =
      batch.prompt_lengths.empty() ? std::move(prompt_lengths) : batch.prompt_lengths;
  context->row_adapters = batch.row_adapters;
  tape.set_context(context);
  return context;
}

/// The tokens of each row before the first that is to be predicted, padding not counted; all of a
/// row that begins with one or has none. Empty where tokens have no labels.
template <std::floating_point T>
std::vector<Index> tokens_before_labels(const BasicBatch<T>& batch) {
  if (batch.labels.size() != batch.ids.size()) return {};
  std::vector<Index> lengths;
  for (Index b = 0; b < batch.batch; ++b) {
    Index real = 0, first = -1;
    for (Index i = b * batch.seq_len; i < (b + 1) * batch.seq_len; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (!batch.mask.empty() && batch.mask[at] == 0) continue;
      if (first < 0 && batch.labels[at] != kIgnoredLabel) first = real;
      ++real;
    }
    lengths.push_back(first > 0 ? first : real);
  }
  return lengths;
}

/// What fills each row up in front where rows have different numbers of virtual tokens; empty: all
/// have the same.
inline std::vector<Index> fill_of(const std::vector<Index>& virtual_tokens) {
  const Index most = *std::max_element(virtual_tokens.begin(), virtual_tokens.end());
  std::vector<Index> fill;
  for (const Index own : virtual_tokens) fill.push_back(most - own);
  return std::all_of(fill.begin(), fill.end(), [](Index f) { return f == 0; })
             ? std::vector<Index>()
             : fill;
}

/// Which keys attention may see, [batch, extra + seq_len]: the real tokens of a batch, and `extra`
/// virtual ones before each row, without those that fill it up. Null if all are real.
template <std::floating_point T>
std::shared_ptr<const std::vector<unsigned char>> key_mask(const BasicBatch<T>& batch, Index extra,
                                                           const std::vector<Index>& fill = {}) {
  const bool padded = std::find(batch.mask.begin(), batch.mask.end(), 0) != batch.mask.end();
  if (!padded && fill.empty()) return nullptr;
  const Index tokens = extra + batch.seq_len;
  auto mask = std::make_shared<std::vector<unsigned char>>(
      static_cast<std::size_t>(batch.batch * tokens), static_cast<unsigned char>(1));
  for (Index b = 0; b < batch.batch; ++b) {
    if (padded)
      std::copy_n(batch.mask.begin() + b * batch.seq_len, batch.seq_len,
                  mask->begin() + b * tokens + extra);
    if (!fill.empty())
      std::fill_n(mask->begin() + b * tokens, fill[static_cast<std::size_t>(b)],
                  static_cast<unsigned char>(0));
  }
  return mask;
}

using Model = BasicModel<float>;

}  // namespace graft::inline v0_1::models
