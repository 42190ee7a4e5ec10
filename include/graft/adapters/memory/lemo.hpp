#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/plain_lora.hpp"
#include "graft/autograd/ops/edit_rows.hpp"

namespace graft::inline v0_1 {

/// Configuration of LeMo around LoRA.
struct LeMoConfig {
  Index block_size = 64;  ///< tokens of a block
  Index rank = 8;
  double alpha = 8;
  double dropout = 0;
  /// Scores from which on a block of tokens is kept, one a layer; empty: all are kept.
  std::vector<double> attention_thresholds = {}, mlp_thresholds = {};
  bool dense_inference = true;  ///< outside of training all tokens run
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LEMO";

  template <class Visitor>
  void fields(Visitor& v) {
    v("block_size", block_size);
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("attention_thresholds", attention_thresholds);
    v("mlp_thresholds", mlp_thresholds);
    v("dense_inference", dense_inference);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a block size below one
  void validate() const {
    if (block_size < 1) throw ValueError(concat("LeMo: block_size ", block_size));
  }
};

/// Which tokens the sublayers of a model run on in training.
template <std::floating_point T>
class LeMoStack final : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  /// What a sublayer saw last: the scores of the blocks of tokens and which of them it kept, both
  /// [batch · blocks]. Empty if it kept all without a look.
  struct Seen {
    std::vector<double> score;
    std::vector<unsigned char> keep;
  };
  /// Scores [batch · blocks] of the blocks of tokens for a sublayer of a layer whose input is
  /// [batch · tokens, hidden], in place of those that are computed; see BasicLeMoPredictor.
  using Scorer = std::function<std::vector<double>(Index layer, HiddenRole role,
                                                   const BasicTensor<T>& x, Index batch)>;

  LeMoStack(const LeMoConfig& config, Index layers)
      : block_(config.block_size), dense_inference_(config.dense_inference) {
    const auto of = [&](std::vector<double> given, const char* name) {
      if (given.empty()) given.assign(static_cast<std::size_t>(layers), kNone);
      if (std::ssize(given) != layers)
        throw ValueError(concat("LeMo: ", given.size(), " ", name, " for ", layers, " layers"));
      return given;
    };
    attention_.threshold = of(config.attention_thresholds, "attention_thresholds");
    mlp_.threshold = of(config.mlp_thresholds, "mlp_thresholds");
    attention_.seen.resize(static_cast<std::size_t>(layers));
    mlp_.seen.resize(static_cast<std::size_t>(layers));
  }
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }
  void begin(BasicTape<T>&) const override {}
  BasicVar<T> enter(Index, const BasicVar<T>& x) const override { return x; }
  void leave(Index, const BasicVar<T>&) const override {}
  bool runs_blocks() const override { return true; }

  /// Thresholds of the layers, to be read and changed. With zeros everything is scored and kept.
  std::vector<double>& attention_thresholds() { return attention_.threshold; }
  std::vector<double>& mlp_thresholds() { return mlp_.threshold; }
  void set_dense_inference(bool dense) { dense_inference_ = dense; }
  void set_scorer(Scorer scorer) { scorer_ = std::move(scorer); }
  const Seen& seen_by_attention(Index layer) const {
    return attention_.seen.at(static_cast<std::size_t>(layer));
  }
  const Seen& seen_by_mlp(Index layer) const {
    return mlp_.seen.at(static_cast<std::size_t>(layer));
  }
  /// Makes the mean scores of the last pass the thresholds, where there were scores.
  void thresholds_from_scores() {
    for (auto* side : {&attention_, &mlp_})
      for (std::size_t l = 0; l < side->seen.size(); ++l)
        if (const auto& score = side->seen[l].score; !score.empty())
          side->threshold[l] =
              std::accumulate(score.begin(), score.end(), 0.0) / static_cast<double>(score.size());
  }
  /// θ ← θ + step (quality(θ + eps) − quality(θ − eps)) / (2 eps) for each threshold that is there.
  void refine(const std::function<double()>& quality, double step, double eps) {
    for (auto* side : {&attention_, &mlp_})
      for (double& threshold : side->threshold) {
        if (threshold == kNone) continue;
        const double old = threshold;
        threshold = old + eps;
        const double up = quality();
        threshold = old - eps;
        threshold = old + step * (up - quality()) / (2 * eps);
      }
  }

  BasicVar<T> run(const BasicVar<T>& input, const StackBlocks<T>& blocks) const override {
    auto x = input;
    const bool sparse = x.tape().training() || !dense_inference_;
    for (Index l = 0; l < blocks.count; ++l) {
      const auto i = static_cast<std::size_t>(l);
      attention_.seen[i] = mlp_.seen[i] = {};
      if (!sparse || (attention_.threshold[i] == kNone && mlp_.threshold[i] == kNone)) {
        x = blocks.block(l, x, blocks.tokens);
        continue;
      }
      if (!blocks.attention)
        throw ValueError(
            "LeMo: tokens can be left out where a block is an attention and a feed-forward "
            "network, "
            "one after the other");
      x = on_kept(attention_, HiddenRole::attention, l, x, blocks.attention, blocks.tokens);
      x = on_kept(mlp_, HiddenRole::feed_forward, l, x, blocks.feed_forward, blocks.tokens);
    }
    return x;
  }

  /// For the attention sites: scores of the blocks of keys, Σ over blocks of queries of the largest
  /// mean probability over the heads.
  void see(const AttentionCall<T>& call) const {
    if (looking_ == nullptr) return;
    const auto& o = call.options;
    const Index queries = call.q.rows() / o.batch, keys = call.k.rows() / o.batch,
                width = call.q.cols() / o.heads, shared = o.heads / o.kv_heads,
                blocks = blocks_of(queries);
    if (queries != keys)
      throw ValueError("LeMo: keys that are no tokens of the text cannot be scored");
    std::vector<double> scores(static_cast<std::size_t>(o.batch * blocks), 0), mean, row, largest;
    for (Index b = 0; b < o.batch; ++b) {
      const auto visible = [&](Index j) {
        return !o.key_mask || (*o.key_mask)[static_cast<std::size_t>(b * keys + j)] != 0;
      };
      for (Index first = 0; first < queries; first += block_) {
        largest.assign(static_cast<std::size_t>(blocks), 0);
        for (Index i = first; i < std::min(queries, first + block_); ++i) {
          if (!visible(i)) continue;
          mean.assign(static_cast<std::size_t>(keys), 0);
          for (Index h = 0; h < o.heads; ++h) {
            const T* q = call.q.value().data() + (b * queries + i) * call.q.cols() + h * width;
            row.assign(static_cast<std::size_t>(keys), 0);
            double top = -std::numeric_limits<double>::infinity(), sum = 0;
            for (int pass = 0; pass < 2; ++pass)
              for (Index j = 0; j < keys; ++j) {
                if (!visible(j) || (o.causal && j > i)) continue;
                double& s = row[static_cast<std::size_t>(j)];
                if (pass == 1) {
                  s = std::exp(s - top);
                  sum += s;
                  continue;
                }
                const T* k =
                    call.k.value().data() + (b * keys + j) * call.k.cols() + h / shared * width;
                for (Index e = 0; e < width; ++e)
                  s += static_cast<double>(q[e]) * static_cast<double>(k[e]);
                s *= static_cast<double>(o.scale);
                top = std::max(top, s);
              }
            for (Index j = 0; j < keys; ++j)
              mean[static_cast<std::size_t>(j)] +=
                  row[static_cast<std::size_t>(j)] / (sum * static_cast<double>(o.heads));
          }
          for (Index j = 0; j < keys; ++j) {
            double& s = largest[static_cast<std::size_t>(j / block_)];
            s = std::max(s, mean[static_cast<std::size_t>(j)]);
          }
        }
        for (Index j = 0; j < blocks; ++j)
          scores[static_cast<std::size_t>(b * blocks + j)] += largest[static_cast<std::size_t>(j)];
      }
    }
    *looking_ = std::move(scores);
  }
  /// For the last layers of the feed-forward networks: mean size of the inner activations of a
  /// block of tokens. x: [batch · tokens, inner]
  void see(const BasicTensor<T>& x, Index batch) const {
    if (looking_ == nullptr) return;
    const Index tokens = x.rows() / batch, blocks = blocks_of(tokens);
    std::vector<double> scores(static_cast<std::size_t>(batch * blocks), 0);
    for (Index row = 0; row < x.rows(); ++row) {
      const Index block = row % tokens / block_;
      const double share =
          1 / static_cast<double>(std::min(block_, tokens - block * block_) * x.cols());
      double& score = scores[static_cast<std::size_t>(row / tokens * blocks + block)];
      for (Index j = 0; j < x.cols(); ++j)
        score += share * std::abs(static_cast<double>(x[row * x.cols() + j]));
    }
    *looking_ = std::move(scores);
  }

 private:
  static constexpr double kNone = -std::numeric_limits<double>::infinity();

  struct Side {
    std::vector<double> threshold;
    mutable std::vector<Seen> seen;
  };

  Index blocks_of(Index tokens) const { return (tokens + block_ - 1) / block_; }

  /// The sublayer on the rows of x that it keeps; the others stay as they are.
  BasicVar<T> on_kept(const Side& side, HiddenRole role, Index layer, const BasicVar<T>& x,
                      const typename StackBlocks<T>::Run& run, const BlockTokens& tokens) const {
    const auto i = static_cast<std::size_t>(layer);
    if (side.threshold[i] == kNone) return run(layer, x, tokens);
    auto& seen = side.seen[i];
    seen.score = scorer_ ? scorer_(layer, role, x.value(), tokens.batch)
                         : computed_scores(layer, x, run, tokens);
    const Index batch = tokens.batch, length = x.rows() / batch, blocks = blocks_of(length);
    if (std::ssize(seen.score) != batch * blocks)
      throw ShapeError(concat("LeMo: ", seen.score.size(), " scores for ", batch, " x ", blocks,
                              " blocks of tokens"));
    const auto real = [&](Index b, Index t) {
      return !tokens.key_mask || (*tokens.key_mask)[static_cast<std::size_t>(b * length + t)] != 0;
    };
    seen.keep.assign(static_cast<std::size_t>(batch * blocks), 0);
    std::vector<std::vector<Index>> kept(static_cast<std::size_t>(batch));
    std::size_t most = 0, total = 0;
    for (Index b = 0; b < batch; ++b) {
      Index last = length - 1;  // a real token, if there is one
      while (last > 0 && !real(b, last)) --last;
      auto& own = kept[static_cast<std::size_t>(b)];
      for (Index j = 0; j < blocks; ++j) {
        const auto at = static_cast<std::size_t>(b * blocks + j);
        if (!(seen.score[at] >= side.threshold[i]) && j != last / block_) continue;
        seen.keep[at] = 1;
        for (Index t = j * block_; t < std::min(length, (j + 1) * block_); ++t) own.push_back(t);
      }
      most = std::max(most, own.size());
      total += own.size();
    }
    if (static_cast<Index>(total) == x.rows()) return run(layer, x, tokens);
    // Rows of the batch that keep fewer tokens than others are filled up behind them.
    BlockTokens part;
    part.batch = batch;
    part.fill = tokens.fill;
    auto mask = std::make_shared<std::vector<unsigned char>>();
    std::vector<Index> gathered, from, to;
    for (Index b = 0; b < batch; ++b) {
      const auto& own = kept[static_cast<std::size_t>(b)];
      for (std::size_t k = 0; k < most; ++k) {
        const Index t = k < own.size() ? own[k] : own.back();
        if (k < own.size()) {
          from.push_back(std::ssize(gathered));
          to.push_back(b * length + t);
        }
        gathered.push_back(b * length + t);
        part.positions.push_back(t);
        mask->push_back(static_cast<unsigned char>(k < own.size() && real(b, t)));
      }
    }
    if (std::find(mask->begin(), mask->end(), 0) != mask->end()) part.key_mask = std::move(mask);
    auto y = run(layer, gather_rows(x, gathered), part);
    if (from.size() < gathered.size()) y = gather_rows(y, std::move(from));
    return replace_rows(x, std::move(to), y);
  }

  std::vector<double> computed_scores(Index layer, const BasicVar<T>& x,
                                      const typename StackBlocks<T>::Run& run,
                                      const BlockTokens& tokens) const {
    std::vector<double> scores;
    struct Looking {
      std::vector<double>*& pointer;
      ~Looking() { pointer = nullptr; }
    } looking{looking_};
    looking_ = &scores;
    BasicTape<T> tape({.gradients = false, .training = false});
    tape.set_context(x.tape().shared_context());
    run(layer, tape.constant(x.value()), tokens);
    return scores;
  }

  Index block_;
  bool dense_inference_;
  Side attention_, mlp_;
  Scorer scorer_;
  mutable std::vector<double>* looking_ = nullptr;
};

namespace detail {

/// Tells LeMo the queries and keys of an attention.
template <std::floating_point T>
class LeMoAttention final : public AttentionPart<T> {
 public:
  explicit LeMoAttention(std::shared_ptr<const LeMoStack<T>> stack) : stack_(std::move(stack)) {}
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }
  void before(AttentionCall<T>& call) const override { stack_->see(call); }

 private:
  std::shared_ptr<const LeMoStack<T>> stack_;
};
/// Tells LeMo the inner activations of a feed-forward network.
template <std::floating_point T>
class LeMoInner final : public LinearPart<T> {
 public:
  explicit LeMoInner(std::shared_ptr<const LeMoStack<T>> stack) : stack_(std::move(stack)) {}
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }
  BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const override {
    if (const auto* context = x.tape().template context<ForwardContext>())
      stack_->see(x.value(), context->batch);
    return base(x);
  }

 private:
  std::shared_ptr<const LeMoStack<T>> stack_;
};

}  // namespace detail

/// LeMo: LoRA on long texts, trained on the tokens that carry information.
///
/// Tokens in blocks of c. Before an attention I_ij = max over the pair of blocks of the mean
/// probability over the heads, I_j = Σ_i I_ij; before a feed-forward network I_j = mean |inner
/// activation| of the block, of what its last layer reads. A sublayer runs on the rows of the
/// blocks with I_j ≥ θ and of the last one of each text, at their positions; all others go by it on
/// the residual path and nothing is kept of them. Trained: r (in + out) a layer, as LoRA. Scores
/// are of the current layer with its adapters, without a gradient, on all rows; a scorer (a trained
/// `BasicLeMoPredictor`) takes their place where that costs too much. Without thresholds, and
/// outside of training (`dense_inference`), all tokens run: plain LoRA, the identity at the start.
/// Thresholds come from the configuration, from a pass with thresholds of zero
/// (`thresholds_from_scores`), or by `refine`. Cannot be merged while it is trained on fewer
/// tokens; save it and load its tensors as LoRA. Models: LLaMA-like ones without a window,
/// BERT-like ones. The loss of causal models is computed in segments anyway. Source: Wang et al.
/// 2025 (arXiv:2501.09767). Deviation: no drop budget in `refine`. Tensors: lora_A.weight,
/// lora_B.weight.
template <std::floating_point T>
struct LeMoMethod {
  using Scalar = T;
  using Config = LeMoConfig;

  static MethodInfo info() {
    return {.peft_type = "LEMO",
            .name = "LeMo",
            .family = "memory",
            .paper = "arXiv:2501.09767",
            .sites = "linear",
            .parameters = "r (in + out)",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    config.validate();
    return linear_part(Update(config, site, context));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table, InitContext<T>&) {
    if (table.stack == nullptr) {
      if (config.attention_thresholds.empty() && config.mlp_thresholds.empty()) return;
      throw ValueError(concat("LeMo: thresholds, but the model (", table.info.architecture,
                              ") has no single stack of blocks"));
    }
    const auto stack = std::make_shared<LeMoStack<T>>(config, table.info.layers);
    table.stack->adapters().push_back({set.name(), stack});
    set.add_part(table.stack->path(), stack);
    for (auto* site : table.attention) {
      const auto part = std::make_shared<detail::LeMoAttention<T>>(stack);
      site->adapters().push_back({set.name(), part});
      set.add_part(site->path(), part);
    }
    for (auto* site : detail::last_feed_forward_layers(table)) {
      const auto part = std::make_shared<detail::LeMoInner<T>>(stack);
      site->adapters().push_back({set.name(), part});
      set.add_part(site->path(), part);
    }
  }

 private:
  class Update : public detail::PlainLoRA<T> {
   public:
    Update(const Config& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
        : detail::PlainLoRA<T>(config.rank, config.alpha, config.dropout, site, context) {}
    std::string merge_reason() const {
      return "LeMo trains on a part of the tokens and runs on all; load its tensors as LoRA to "
             "merge them";
    }
  };
};

}  // namespace graft::inline v0_1
