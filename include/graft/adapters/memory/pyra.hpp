#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/sublayer.hpp"
#include "graft/autograd/ops/scatter_rows.hpp"

namespace graft::inline v0_1 {

/// Configuration of PYRA.
struct PYRAConfig {
  std::vector<Index> merge_schedule = {};  ///< tokens that each block merges; empty: none do

  static constexpr const char* kPeftType = "PYRA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("merge_schedule", merge_schedule);
  }
  /// @throws ValueError for a negative number
  void validate() const {
    for (const Index r : merge_schedule)
      if (r < 0) throw ValueError(concat("PYRA: merge_schedule with ", r));
  }
};

/// Weights of PYRA in one block: how tokens are changed before they are merged into others.
template <std::floating_point T>
class PYRABlock final : public AdapterPart<T> {
 public:
  PYRABlock(Index merged, Index width, InitContext<T>& context)
      : weight_d_(detail::linear_default(context, {merged, 1}, 1)),
        weight_r_(detail::constant<T>({1, width}, 0)),
        norm_weight_(detail::constant<T>({width}, 1)),
        norm_bias_(detail::constant<T>({width}, 0)) {}
  std::vector<AdapterTensor<T>> tensors() const override {
    return {detail::named("pyra.weight_D", weight_d_), detail::named("pyra.weight_r", weight_r_),
            detail::named("pyra.norm.weight", norm_weight_),
            detail::named("pyra.norm.bias", norm_bias_)};
  }
  std::string merge_reason() const override {
    return "PYRA merges tokens by what they are; that is no change of a weight";
  }
  Index merged() const { return weight_d_.shape()[0]; }
  /// src + (src ⊙ δ_D) ⊙ δ_r of tokens [batch · r, width] and those that they are merged into.
  BasicVar<T> modulated(const BasicVar<T>& source, const BasicVar<T>& target) const {
    auto& tape = source.tape();
    const Index r = merged(), width = source.cols(), batch = source.rows() / r;
    const auto n = layer_norm(add(source, target), tape.parameter(norm_weight_),
                              tape.parameter(norm_bias_), static_cast<T>(1e-5));
    const auto delta_d = scale(
        sigmoid(sum_axis(mul(reshape(n, {batch, r, width}), tape.parameter(weight_d_)), 1, true)),
        T{2});
    const auto delta_r = add_scalar(
        scale(sigmoid(matmul(n, tape.parameter(weight_r_), Transpose::no, Transpose::yes)), T{2}),
        T{-1});
    const auto change =
        mul(reshape(mul(reshape(source, {batch, r, width}), delta_d), source.shape()), delta_r);
    return add(source, change);
  }

 private:
  BasicParameter<T> weight_d_, weight_r_, norm_weight_, norm_bias_;
};

/// Runs the blocks of a model on fewer and fewer tokens.
template <std::floating_point T>
class PYRAStack final : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  /// What a block did in the last pass: the tokens that it merged and those that they went into,
  /// [batch · r] positions in the block's order, the most similar first; and how many of the first
  /// tokens each of those left stands for, [batch · tokens].
  struct Merged {
    std::vector<Index> tokens, into;
    BasicTensor<T> sizes;
  };

  /// `blocks`: null where a block merges none; empty: nothing is done.
  explicit PYRAStack(std::vector<std::shared_ptr<const PYRABlock<T>>> blocks)
      : blocks_(std::move(blocks)), merged_(blocks_.size()) {}
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }
  void begin(BasicTape<T>&) const override {}
  BasicVar<T> enter(Index, const BasicVar<T>& x) const override { return x; }
  void leave(Index, const BasicVar<T>&) const override {}
  bool runs_blocks() const override { return !blocks_.empty(); }
  const Merged& last_merged(Index layer) const {
    return merged_.at(static_cast<std::size_t>(layer));
  }

  BasicVar<T> run(const BasicVar<T>& input, const StackBlocks<T>& blocks) const override {
    if (!blocks.attention || blocks.tokens.key_mask)
      throw ValueError("PYRA: only image encoders, without rows that are filled up");
    auto x = input;
    auto& tape = x.tape();
    sizes_ = {};
    for (Index l = 0; l < blocks.count; ++l) {
      const auto& block = blocks_[static_cast<std::size_t>(l)];
      auto& merged = merged_[static_cast<std::size_t>(l)];
      merged = {};
      const auto h = blocks.attention(l, x, blocks.tokens);
      const auto fewer = block ? merge(*block, h, blocks.tokens.batch, merged) : h;
      if (block) {
        auto changed = std::make_shared<ForwardContext>();
        if (const auto* context = tape.template context<ForwardContext>()) *changed = *context;
        changed->batch = blocks.tokens.batch;
        changed->seq_len = fewer.rows() / blocks.tokens.batch;
        tape.set_context(changed);
      }
      merged.sizes = sizes_;
      x = blocks.feed_forward(l, fewer, blocks.tokens);
    }
    sizes_ = keys_ = {};
    return x;
  }
  /// For the attention sites: remembers the keys, and adds log of their sizes to the scores of keys
  /// that stand for several tokens, as one more element of each head.
  void see(AttentionCall<T>& call) const {
    if (blocks_.empty()) return;
    keys_ = call.k.value();
    heads_ = call.options.kv_heads;
    if (!sizes_) return;
    if (sizes_.size() != call.k.rows())
      throw ValueError("PYRA: keys that are no tokens of the image have no size");
    const auto longer = [](const BasicVar<T>& x, Index heads, const BasicTensor<T>& last) {
      const Index width = x.cols() / heads;
      const auto parts =
          std::vector<BasicVar<T>>{reshape(x, {x.rows() * heads, width}), x.tape().constant(last)};
      return reshape(concat_along(1, parts), {x.rows(), heads * (width + 1)});
    };
    auto logs = BasicTensor<T>::empty({call.k.rows() * heads_, 1});
    for (Index i = 0; i < logs.size(); ++i) logs[i] = std::log(sizes_[i / heads_]);
    const Index heads = call.options.heads;
    call.q = longer(call.q, heads,
                    BasicTensor<T>::full({call.q.rows() * heads, 1}, T{1} / call.options.scale));
    call.k = longer(call.k, heads_, logs);
  }

 private:
  /// Tokens of the even positions but the first, each with the token of an odd position whose keys
  /// are the most similar to its own, the most similar pair first.
  std::vector<std::pair<Index, Index>> matched(Index row, Index tokens) const {
    const Index width = keys_.cols() / heads_;
    std::vector<double> metric(static_cast<std::size_t>(tokens * width), 0);
    for (Index t = 0; t < tokens; ++t) {
      double* m = metric.data() + t * width;
      double length = 0;
      for (Index e = 0; e < width; ++e) {
        for (Index h = 0; h < heads_; ++h)
          m[e] += static_cast<double>(keys_[(row * tokens + t) * keys_.cols() + h * width + e]);
        length += m[e] * m[e];
      }
      length = std::sqrt(length);
      for (Index e = 0; e < width && length > 0; ++e) m[e] /= length;
    }
    struct Match {
      double similarity;
      Index token, into;
    };
    std::vector<Match> list;
    for (Index a = 2; a < tokens; a += 2) {
      Match best{-2, a, 1};
      for (Index b = 1; b < tokens; b += 2) {
        const double s =
            std::inner_product(metric.data() + a * width, metric.data() + (a + 1) * width,
                               metric.data() + b * width, 0.0);
        if (s > best.similarity) best = {s, a, b};
      }
      list.push_back(best);
    }
    std::stable_sort(list.begin(), list.end(),
                     [](const Match& a, const Match& b) { return a.similarity > b.similarity; });
    std::vector<std::pair<Index, Index>> pairs;
    for (const auto& match : list) pairs.emplace_back(match.token, match.into);
    return pairs;
  }

  BasicVar<T> merge(const PYRABlock<T>& block, const BasicVar<T>& x, Index batch,
                    Merged& merged) const {
    const Index tokens = x.rows() / batch, r = block.merged(), left = tokens - r;
    if (keys_.rows() != x.rows() || r > (tokens - 1) / 2)
      throw ValueError(concat("PYRA: ", r, " of ", tokens, " tokens cannot be merged, at most ",
                              (tokens - 1) / 2, " can"));
    if (!sizes_) sizes_ = BasicTensor<T>::ones({x.rows(), 1});
    std::vector<Index> source, target, order, place;
    auto sizes = BasicTensor<T>::empty({batch * left, 1});
    for (Index b = 0; b < batch; ++b) {
      const auto pairs = matched(b, tokens);
      std::vector<unsigned char> gone(static_cast<std::size_t>(tokens), 0);
      for (Index k = 0; k < r; ++k)
        gone[static_cast<std::size_t>(pairs[static_cast<std::size_t>(k)].first)] = 1;
      std::vector<Index> at(static_cast<std::size_t>(tokens), -1);
      for (const Index parity : {0, 1})
        for (Index t = parity; t < tokens; t += 2) {
          if (gone[static_cast<std::size_t>(t)] != 0) continue;
          at[static_cast<std::size_t>(t)] = std::ssize(order);
          sizes[std::ssize(order)] = sizes_[b * tokens + t];
          order.push_back(b * tokens + t);
        }
      for (Index k = 0; k < r; ++k) {
        const auto [from, into] = pairs[static_cast<std::size_t>(k)];
        merged.tokens.push_back(from);
        merged.into.push_back(into);
        source.push_back(b * tokens + from);
        target.push_back(b * tokens + into);
        place.push_back(at[static_cast<std::size_t>(into)]);
        sizes[place.back()] += sizes_[source.back()];
      }
    }
    auto& tape = x.tape();
    const auto weighted = mul(x, tape.constant(sizes_));
    const auto moved = block.modulated(gather_rows(weighted, std::move(source)),
                                       gather_rows(weighted, std::move(target)));
    const auto sum = add(gather_rows(weighted, std::move(order)),
                         scatter_rows(moved, std::move(place), batch * left));
    sizes_ = sizes;
    return div(sum, tape.constant(sizes_));
  }

  std::vector<std::shared_ptr<const PYRABlock<T>>> blocks_;
  mutable std::vector<Merged> merged_;
  mutable BasicTensor<T> sizes_, keys_;
  mutable Index heads_ = 1;
};

namespace detail {

/// Shows PYRA the keys of an attention.
template <std::floating_point T>
class PYRAAttention final : public AttentionPart<T> {
 public:
  explicit PYRAAttention(std::shared_ptr<const PYRAStack<T>> stack) : stack_(std::move(stack)) {}
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }
  void before(AttentionCall<T>& call) const override { stack_->see(call); }

 private:
  std::shared_ptr<const PYRAStack<T>> stack_;
};

}  // namespace detail

/// PYRA: each block of an image encoder merges the r tokens that have the most similar others into
/// these, between attention and feed-forward network, with a trained change of what is merged.
///
/// Matching: keys of the block's attention, mean over the heads, of unit length; each token of an
/// even position but the class token takes its best one of an odd position, the r most similar
/// pairs are merged; no gradient. On x ⊙ s, s the sizes (how many tokens one stands for):
///
///     n = LN(src + dst),  δ_D = 2σ(W_Dᵀ n),  δ_r = 2σ(n W_rᵀ) − 1
///     dst ← dst + Σ (src + (src ⊙ δ_D) ⊙ δ_r)
///
/// then over the new sizes; tokens in the order [even ones that are left; odd ones]. Attentions
/// after that add log s_j to the scores of key j. x: [batch · tokens, d], src, dst: [r, d] a row of
/// the batch; W_D: [r, 1], uniform in ±1, W_r: [1, d], zero: plain token merging at the start; LN
/// with eps 1e-5. Trained: r + 3 d a block with r > 0. Without a schedule nothing is merged and
/// nothing trained; train it beside another adapter (a second active one, LoRA). Not the identity,
/// cannot be merged. Models: image encoders (ViT). Source: Xiong et al. 2024 (arXiv:2403.09192).
/// Tensors: pyra.{weight_D, weight_r, norm.weight, norm.bias} at the blocks.
template <std::floating_point T>
struct PYRAMethod {
  using Scalar = T;
  using Config = PYRAConfig;

  static MethodInfo info() {
    return {.peft_type = "PYRA",
            .name = "PYRA",
            .family = "memory",
            .paper = "arXiv:2403.09192",
            .sites = "blocks",
            .parameters = "; r + 3 d a block that merges r tokens",
            .mergeable = false,
            .in_peft = false,
            .exact_gradient = false,
            .starts_empty =
                "merge_schedule has the number of tokens that each block merges, and names none"};
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    config.validate();
    std::vector<std::shared_ptr<const PYRABlock<T>>> blocks;
    const auto& schedule = config.merge_schedule;
    if (table.stack == nullptr ||
        (!schedule.empty() &&
         (table.info.architecture != "vit" || std::ssize(schedule) != table.info.layers)))
      throw ValueError(concat("PYRA: a schedule of ", schedule.size(), " blocks for a model (",
                              table.info.architecture, ") of ", table.info.layers,
                              ", expected an image encoder and one number a block"));
    for (const auto* site : table.hidden) {
      if (site->role() != HiddenRole::block || schedule.empty()) continue;
      const Index r = schedule[blocks.size()];
      auto part = r > 0 ? std::make_shared<PYRABlock<T>>(r, site->width(), context) : nullptr;
      if (part) set.add_part(site->path(), part);
      blocks.push_back(std::move(part));
    }
    const auto stack = std::make_shared<PYRAStack<T>>(std::move(blocks));
    table.stack->adapters().push_back({set.name(), stack});
    set.add_part(table.stack->path(), stack);
    for (auto* site : table.attention) {
      const auto part = std::make_shared<detail::PYRAAttention<T>>(stack);
      site->adapters().push_back({set.name(), part});
      set.add_part(site->path(), part);
    }
  }
};

}  // namespace graft::inline v0_1
