#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/layers/decoder_blocks.hpp"
#include "graft/layers/language_head.hpp"
#include "graft/models/classifier.hpp"
#include "graft/models/model.hpp"

namespace graft::inline v0_1::models {

/// A model that predicts the next token: embedding, blocks, final norm, head. Derived classes give
/// the blocks. With a classifier for a head it says one thing about each row: what the head (site
/// `score`) makes of the last real token.
template <std::floating_point T>
class BasicCausalModel : public BasicModel<T> {
 public:
  /// Final hidden states [batch · tokens, hidden], virtual tokens first in each row. With a cache:
  /// of the tokens of this batch only (one row), at the positions after the cached ones.
  BasicVar<T> hidden(BasicTape<T>& tape, const BasicBatch<T>& batch,
                     BasicKvCache<T>* cache = nullptr) const {
    check(batch);
    const auto context = set_forward_context(
        tape, batch, cache == nullptr ? std::vector<std::int32_t>() : cache->ids,
        tokens_before_labels(batch));
    if (!pass_site.adapters().empty())
      pass_site(tape, [&](BasicTape<T>& inner) {
        auto whole = batch;
        if (cache != nullptr && !cache->ids.empty()) {
          whole.ids.insert(whole.ids.begin(), cache->ids.begin(), cache->ids.end());
          whole.seq_len += static_cast<Index>(cache->ids.size());
          whole.mask.clear();
        }
        const auto h = hidden(inner, whole).value();
        const Index rows = batch.batch * batch.seq_len;
        return cache == nullptr ? h : h.slice_rows(h.rows() - rows, rows);
      });
    if (!stack.adapters().empty()) stack.begin(tape);
    auto x = embed(tape, batch.ids);
    const Index dim = x.cols();
    const bool first = cache == nullptr || cache->length() == 0;
    const auto virtual_tokens =
        prompt.virtual_tokens(batch.row_adapters, batch.batch, static_cast<bool>(batch.visual));
    const Index extra = first ? *std::max_element(virtual_tokens.begin(), virtual_tokens.end()) : 0;
    if (extra > 0) x = prompt(reshape(x, {batch.batch, batch.seq_len, dim}), *context);
    DecoderPass<T> pass;
    pass.batch = batch.batch;
    pass.tokens = batch.seq_len + extra;
    pass.cache = cache;
    pass.first_position = cache == nullptr ? 0 : cache->length();
    if (first) pass.fill = fill_of(virtual_tokens);
    pass.key_mask = key_mask(batch, extra, pass.fill);
    auto y = blocks(reshape(x, {batch.batch * pass.tokens, dim}), pass);
    y = stack.finish(y);
    if (cache != nullptr) {
      cache->advance(pass.tokens);
      cache->ids.insert(cache->ids.end(), batch.ids.begin(), batch.ids.end());
    }
    return y;
  }

  BasicVar<T> logits(BasicTape<T>& tape, const BasicBatch<T>& batch) const override {
    const auto h = hidden(tape, batch);
    if (classifies()) return head(gather_rows(h, last_tokens(batch, h.rows() / batch.batch)));
    const auto y = capped_logits(head(h), logit_cap);
    return reshape(y, {batch.batch, y.rows() / batch.batch, y.cols()});
  }
  /// Logits of the last token, [vocabulary]; the tokens of `batch` follow those in the cache.
  BasicTensor<T> next_logits(BasicTape<T>& tape, const BasicBatch<T>& batch,
                             BasicKvCache<T>& cache) const {
    expect_language_model("generation");
    const auto h = hidden(tape, batch, &cache).value();
    const auto last = tape.constant(h.slice_rows(h.rows() - 1, 1));
    auto y = capped_logits(head(last), logit_cap).value();
    return y.reshape({y.size()});
  }
  /// Mean cross-entropy of the next token; label -100 does not count. labels: [batch, seq_len], not
  /// shifted.
  BasicVar<T> loss(BasicTape<T>& tape, const BasicBatch<T>& batch) const override {
    return classifies() ? loss_of(logits(tape, batch), batch)
                        : token_loss(tape, batch, nullptr, nullptr);
  }
  BasicVar<T> loss_of(const BasicVar<T>& logits, const BasicBatch<T>& batch) const override {
    if (classifies()) return classification_loss(logits, batch, classifier_.problem);
    std::vector<T> weights;
    const auto labels = predicted_tokens(batch, weights);
    return cross_entropy(reshape(logits, {logits.rows(), logits.cols()}),
                         std::span<const std::int64_t>(labels), std::span<const T>(weights));
  }
  bool predicts_tokens() const override { return !classifies(); }
  BasicVar<T> token_loss(BasicTape<T>& tape, const BasicBatch<T>& batch,
                         std::vector<unsigned char>* correct,
                         std::vector<T>* losses) const override {
    expect_language_model("loss of tokens");
    const auto h = hidden(tape, batch);
    std::vector<T> weights;
    const auto labels = predicted_tokens(batch, weights);
    return linear_cross_entropy(h, head, std::span<const std::int64_t>(labels), Index{128}, correct,
                                losses, std::span<const T>(weights), logit_cap);
  }
  BasicVar<T> token_logits(BasicTape<T>& tape, const BasicBatch<T>& batch) const override {
    expect_language_model("logits of tokens");
    const auto rows = this->predicting_positions(batch);
    return logits_of_rows(hidden(tape, batch), head, rows, logit_cap);
  }
  /// Each position predicts the token after it.
  std::vector<std::int64_t> predicted_tokens(const BasicBatch<T>& batch,
                                             std::vector<T>& weights) const override {
    if (batch.labels.size() != batch.ids.size())
      throw ShapeError(concat("causal loss: ", batch.labels.size(), " labels for ",
                              batch.ids.size(), " tokens"));
    auto labels = this->labels_behind(prompt, batch);
    const Index tokens = std::ssize(labels) / batch.batch;
    prompt.change_labels(batch.batch, labels, weights, batch.row_adapters,
                         static_cast<bool>(batch.visual));
    for (Index b = 0; b < batch.batch; ++b) {
      const auto shift = [&](auto& list, auto last) {
        const auto row = list.begin() + b * tokens;
        std::copy(row + 1, row + tokens, row);
        row[tokens - 1] = last;
      };
      shift(labels, kIgnoredLabel);
      if (!weights.empty()) shift(weights, T{1});
    }
    return labels;
  }
  /// True if the head is a classifier of rows in place of one of tokens.
  bool classifies() const { return classifier_.classes > 0; }
  /// @throws ValueError, with the name of the operation, for such a model
  void expect_language_model(const char* operation) const {
    if (classifies()) throw ValueError(concat(operation, ": the model classifies rows"));
  }
  /// Positions that active adapters take before those of the text: virtual tokens and keys.
  Index virtual_positions() const {
    Index keys = 0;
    for (const auto* site : this->sites_.attention) keys = std::max(keys, site->virtual_keys());
    return prompt.virtual_tokens() + keys;
  }

  BasicEmbeddingSite<T> embed_tokens;
  BasicPromptSite<T> prompt;
  BasicPassSite<T> pass_site;
  BasicStackSite<T> stack;
  BasicNormSite<T> norm;
  BasicLinearSite<T> head;
  Index max_positions = 0;  ///< 0: no limit known
  T logit_cap = 0;          ///< > 0: logits become cap · tanh(logits / cap)
  /// So many blocks are computed again in the backward pass instead of keeping their activations:
  /// the first of those whose input wants a gradient, since their turn comes when those of the
  /// others have been let go. Below them nothing is kept but by the first block that is trained.
  Index recomputed_blocks = 0;

 protected:
  /// Makes the embedding. `tied`: the file may have it as the head alone.
  void make_embedding(const std::string& path, Index vocabulary, Index dim, bool tied,
                      const BasicWeights<T>& weights) {
    const auto stored = tied ? weights.stored_table(path, {"lm_head"}) : path;
    embed_tokens = {path, weights.embedding(stored, vocabulary, dim)};
    prompt = {path, dim};
  }
  /// The row of the padding id in the embedding gets no gradient; a negative id counts from the
  /// end.
  void exclude_padding(const ClassifierHead& classifier) {
    const Index id = classifier.padding_id.value_or(-1);
    if (classifier.padding_id)
      embed_tokens.padding_index = id < 0 ? id + embed_tokens.table().rows() : id;
  }
  /// Makes the head. `tied`: a language model's shares the rows of the embedding, unless the file
  /// has another one.
  void make_head(const ClassifierHead& classifier, bool tied, Index vocabulary,
                 const BasicWeights<T>& weights) {
    classifier_ = classifier;
    const Index d = embed_tokens.table().dim();
    if (classifies())
      head = {"score", weights.linear("score", classifier.classes, d)};
    else if (weights.ties(tied, "lm_head", embed_tokens.path()))
      head = {"lm_head", tied_head(embed_tokens.table())};
    else
      head = {"lm_head", weights.linear("lm_head", vocabulary, d)};
  }
  virtual BasicVar<T> blocks(BasicVar<T> x, const DecoderPass<T>& pass) const = 0;
  virtual BasicVar<T> embed(BasicTape<T>& tape, const std::vector<std::int32_t>& ids) const {
    auto x = embed_tokens(tape, ids);
    return embed_tokens.embed_scale == T{1} ? x : scale(x, embed_tokens.embed_scale);
  }

  /// Runs blocks one after the other; `run(block, x, pass)` is one of them. It may have
  /// `attention(block, x, pass)` and `feed_forward(block, h)`, which are one after the other.
  template <class Block, class Run>
  BasicVar<T> run_stack(BasicVar<T> x, const std::vector<std::unique_ptr<Block>>& list,
                        const DecoderPass<T>& pass, const Run& run) const {
    if (stack.runs_blocks()) return stack.run(x, functions_of(list, pass, run));
    Index left = recomputed_blocks;
    for (std::size_t l = 0; l < list.size(); ++l) {
      x = stack.enter(static_cast<Index>(l), x);
      const auto one = [run, pass, block = list[l].get()](const BasicVar<T>& in) {
        return run(*block, in, pass);
      };
      const bool again = left > 0 && x.requires_grad();
      if (again) --left;
      x = again ? checkpoint(one, x, true) : one(x);
      stack.leave(static_cast<Index>(l), x);
    }
    return x;
  }
  /// A model as a stack of blocks beside another one; sites lose the first part of their paths.
  class Mirror final : public MirrorStack<T> {
   public:
    explicit Mirror(std::unique_ptr<BasicCausalModel> model) : model_(std::move(model)) {}
    BasicSiteTable<T>& sites() override { return model_->sites(); }
    BasicVar<T> embed(BasicTape<T>& tape, const std::vector<std::int32_t>& ids) const override {
      return model_->embed(tape, ids);
    }
    BasicVar<T> run(const BasicVar<T>& x, Index batch, const std::vector<unsigned char>& mask,
                    BasicKvCache<T>* cache) const override {
      DecoderPass<T> pass;
      pass.batch = batch;
      pass.tokens = x.rows() / batch;
      pass.cache = cache;
      pass.first_position = cache == nullptr ? 0 : cache->length();
      if (!mask.empty()) pass.key_mask = std::make_shared<std::vector<unsigned char>>(mask);
      auto y = model_->blocks(x, pass);
      if (cache != nullptr) cache->advance(pass.tokens);
      return y;
    }
    bool ends_in_norm() const override { return true; }

   private:
    std::unique_ptr<BasicCausalModel> model_;
  };

 private:
  template <class Block, class Run>
  static StackBlocks<T> functions_of(const std::vector<std::unique_ptr<Block>>& list,
                                     const DecoderPass<T>& pass, const Run& run) {
    std::vector<const Block*> blocks;
    for (const auto& block : list) blocks.push_back(block.get());
    const auto at = [blocks](Index l) -> const Block& {
      return *blocks[static_cast<std::size_t>(l)];
    };
    StackBlocks<T> functions;
    functions.count = std::ssize(list);
    functions.tokens = {pass.batch, pass.key_mask, pass.fill, {}};
    functions.block = [at, pass, run](Index l, const BasicVar<T>& x, const BlockTokens& tokens) {
      return run(at(l), x, pass.on(tokens, x.rows()));
    };
    if constexpr (requires(const Block& b, const BasicVar<T>& x) { run.attention(b, x, pass); }) {
      functions.attention = [at, pass, run](Index l, const BasicVar<T>& x,
                                            const BlockTokens& tokens) {
        return run.attention(at(l), x, pass.on(tokens, x.rows()));
      };
      functions.feed_forward = [at, run](Index l, const BasicVar<T>& h, const BlockTokens&) {
        return run.feed_forward(at(l), h);
      };
    }
    return functions;
  }
  /// The row of hidden states of the last real token of each row of the batch; the first token
  /// where none is real. transformers goes by the padding id alone, and asks for single rows where
  /// it has none; behind virtual tokens PEFT lets it take the last token, real or not.
  std::vector<Index> last_tokens(const BasicBatch<T>& batch, Index tokens) const {
    std::vector<Index> rows;
    const Index extra = tokens - batch.seq_len;
    for (Index b = 0; b < batch.batch; ++b) {
      Index last = 0;
      for (Index t = 0; t < batch.seq_len; ++t) {
        const auto at = static_cast<std::size_t>(b * batch.seq_len + t);
        if (batch.ids[at] != classifier_.padding_id && (batch.mask.empty() || batch.mask[at] != 0))
          last = t;
      }
      rows.push_back(b * tokens + extra + last);
    }
    return rows;
  }
  void check(const BasicBatch<T>& batch) const {
    const auto tokens = static_cast<std::size_t>(batch.batch * batch.seq_len);
    if (batch.batch <= 0 || batch.seq_len <= 0 || batch.ids.size() != tokens ||
        (!batch.mask.empty() && batch.mask.size() != tokens))
      throw ShapeError(concat("batch of ", batch.batch, " x ", batch.seq_len, " tokens with ",
                              batch.ids.size(), " ids and a mask of ", batch.mask.size()));
  }

  ClassifierHead classifier_;
};

using CausalModel = BasicCausalModel<float>;

#ifdef GRAFT_METHODS_COMPILED
extern template class BasicCausalModel<float>;
extern template class BasicCausalModel<double>;
#endif

}  // namespace graft::inline v0_1::models
