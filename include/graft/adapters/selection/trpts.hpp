#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/procedure_state.hpp"
#include "graft/adapters/selection/sparse_delta.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1 {

/// Configuration of TR-PTS.
struct TRPTSConfig {
  double top_percent = 0.5;  ///< of the elements of all matrices, whose places make the budgets
  Index c_min = 1;           ///< trained inputs of a neuron in the matrix with the smallest share
  double keep_rate = 0.95;   ///< of the tokens of an image, in the blocks that fuse the others
  /// Blocks that fuse tokens: a list, or how many, those with the smallest shares.
  ConfigValue token_layers = Index{3};
  Index connections = 0;   ///< trained inputs of a neuron everywhere; 0: by the budgets
  Index score_steps = 32;  ///< first steps, which only score
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "TRPTS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("top_percent", top_percent);
    v("c_min", c_min);
    v("keep_rate", keep_rate);
    v("token_layers", token_layers);
    v("connections", connections);
    optional_field(v, "score_steps", score_steps, Index{32});
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a number out of its range, or token_layers that are neither.
  void validate() const {
    if (!(top_percent > 0 && top_percent <= 100))
      throw ValueError(concat("TR-PTS: top_percent ", top_percent, ", expected (0, 100]"));
    if (!(keep_rate > 0 && keep_rate <= 1))
      throw ValueError(concat("TR-PTS: keep_rate ", keep_rate, ", expected (0, 1]"));
    if (c_min < 1 || connections < 0 || score_steps < 1)
      throw ValueError(concat("TR-PTS: c_min ", c_min, ", connections ", connections,
                              ", score_steps ", score_steps));
    if (!token_layers.is_number()) listed_layers();
  }
  /// Whether there are blocks that fuse tokens, now or once they are chosen.
  bool fuses() const {
    if (keep_rate == 1) return false;
    return token_layers.is_number() ? token_layers.number() > 0 : !listed_layers().empty();
  }
  /// The blocks that are named. @throws ValueError for anything but a list of numbers
  std::vector<Index> listed_layers() const {
    std::vector<Index> list;
    detail::read_config("token_layers", token_layers, list);
    return list;
  }
};

namespace selection {

/// How TR-PTS shares out what is trained.
struct TRPTSBudgets {
  std::vector<double> share;       ///< of the best ⌊M % of all elements⌋, by matrix
  std::vector<Index> connections;  ///< trained inputs of each neuron, by matrix
};

/// w_ℓ: share of the best places in matrix ℓ; C_ℓ = max(1, round(w_ℓ / min w · C_min)) with the
/// minimum over w > 0 and rounding half to even, at most the inputs; C_min where w_ℓ = 0.
template <std::floating_point T>
TRPTSBudgets trpts_budgets(const std::vector<BasicTensor<T>>& fisher, double top_percent,
                           Index c_min) {
  Index total = 0;
  for (const auto& f : fisher) total += f.size();
  const auto k = static_cast<Index>(std::floor(top_percent / 100 * static_cast<double>(total)));
  const auto chosen = best_of_all(fisher, k);
  TRPTSBudgets budgets;
  double least = 0;
  for (const auto& places : chosen) {
    const double w = k > 0 ? static_cast<double>(places.size()) / static_cast<double>(k) : 0;
    budgets.share.push_back(w);
    if (w > 0 && (least == 0 || w < least)) least = w;
  }
  for (std::size_t l = 0; l < fisher.size(); ++l) {
    const double w = budgets.share[l];
    const auto c =
        w > 0 ? std::max<Index>(
                    1, static_cast<Index>(std::nearbyint(w / least * static_cast<double>(c_min))))
              : c_min;
    budgets.connections.push_back(std::min(c, fisher[l].cols()));
  }
  return budgets;
}

/// The `connections` best places of every row, sorted.
template <std::floating_point T>
Places trpts_places(const BasicTensor<T>& fisher, Index connections) {
  auto places = best_of_rows(fisher, connections);
  const auto width = static_cast<std::size_t>(std::min(connections, fisher.cols()));
  for (std::size_t i = 0; i < places.size(); ++i)
    places[i] += static_cast<std::int64_t>(i / width) * fisher.cols();
  std::sort(places.begin(), places.end());
  return places;
}

/// [class token; kept patches in their order; one token for the others, Σ a_i x_i / Σ a_i]. x:
/// [batch, 1 + N, width], attention: [batch, N] of the class token to each patch; the ⌊ρN⌋ with the
/// most attention are kept, of equal ones the first. As x where nothing is dropped. The choice is a
/// constant of the gradient, the weights are not.
template <std::floating_point T>
BasicVar<T> fuse_tokens(const BasicVar<T>& x, const BasicVar<T>& attention, double keep_rate) {
  const Index batch = x.dim(0), n = x.dim(1) - 1, width = x.dim(2);
  if (n < 0 || attention.value().size() != batch * n)
    throw ShapeError(
        concat("fuse_tokens: attention ", attention.shape().text(), " for x ", x.shape().text()));
  const auto keep = static_cast<Index>(std::floor(keep_rate * static_cast<double>(n)));
  const Index drop = n - keep;
  if (drop <= 0) return x;
  std::vector<Index> kept, dropped, weights;
  for (Index b = 0; b < batch; ++b) {
    const auto& a = attention.value();
    const auto chosen = best(n, keep, [&](std::int64_t i) { return a[b * n + i]; });
    std::vector<char> is_kept(static_cast<std::size_t>(n), 0);
    for (const auto i : chosen) is_kept[static_cast<std::size_t>(i)] = 1;
    for (Index i = 0; i < n; ++i) {
      const bool stays = is_kept[static_cast<std::size_t>(i)] != 0;
      (stays ? kept : dropped).push_back(b * (n + 1) + 1 + i);
      if (!stays) weights.push_back(b * n + i);
    }
  }
  const auto flat = reshape(x, {batch * (n + 1), width});
  const auto a =
      reshape(gather_rows(reshape(attention, {batch * n, 1}), weights), {batch, drop, 1});
  const auto others = reshape(gather_rows(flat, dropped), {batch, drop, width});
  const auto fused = div(sum_axis(mul(others, a), 1, true), sum_axis(a, 1, true));
  std::vector<BasicVar<T>> parts{slice(x, 1, 0, 1)};
  if (keep > 0) parts.push_back(reshape(gather_rows(flat, kept), {batch, keep, width}));
  parts.push_back(fused);
  return concat_along(1, parts);
}

/// Attention of the first token of every row to the others, mean over the heads: [batch, tokens −
/// 1].
template <std::floating_point T>
BasicVar<T> class_attention(const AttentionCall<T>& call) {
  const auto& o = call.options;
  const Index batch = o.batch, heads = o.heads, tokens = call.q.rows() / batch,
              width = call.q.cols() / heads;
  if (o.kv_heads != heads || call.k.rows() != call.q.rows() || o.key_mask || o.bias)
    throw ValueError("TR-PTS: attention with masks, prefixes or grouped heads is not supported");
  const auto q = slice(reshape(call.q, {batch, tokens, heads, width}), 1, 0, 1);
  const auto k = reshape(call.k, {batch, tokens, heads, width});
  const auto scores = scale(sum_axis(mul(k, q), 3), o.scale);
  const auto p = softmax(permute(scores, {0, 2, 1}));
  return slice(mean_axis(p, 1), 1, 1, tokens - 1);
}

}  // namespace selection

/// Which blocks fuse tokens, and what their attentions saw in the pass that runs; shared by all
/// parts of an adapter.
template <std::floating_point T>
struct FusedTokens {
  std::vector<char> blocks;
  std::vector<BasicVar<T>> attention;

  void set(const std::vector<Index>& list) {
    std::fill(blocks.begin(), blocks.end(), char{0});
    for (const Index b : list) {
      if (b < 0 || b >= static_cast<Index>(blocks.size()))
        throw ValueError(concat("TR-PTS: token_layers names block ", b, " of ", blocks.size()));
      blocks[static_cast<std::size_t>(b)] = 1;
    }
  }
};

template <std::floating_point T>
class BasicClassAttention final : public AttentionPart<T> {
 public:
  BasicClassAttention(std::shared_ptr<FusedTokens<T>> state, Index block)
      : state_(std::move(state)), block_(static_cast<std::size_t>(block)) {}
  BasicVar<T> after(const AttentionCall<T>& call, BasicVar<T> out) const override {
    if (state_->blocks[block_] != 0) state_->attention[block_] = selection::class_attention(call);
    return out;
  }
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }

 private:
  std::shared_ptr<FusedTokens<T>> state_;
  std::size_t block_;
};

template <std::floating_point T>
class BasicTokenFusion {
 public:
  using Scalar = T;
  BasicTokenFusion(std::shared_ptr<FusedTokens<T>> state, Index block, double keep_rate)
      : state_(std::move(state)), block_(static_cast<std::size_t>(block)), keep_rate_(keep_rate) {}
  BasicVar<T> apply(const BasicVar<T>&, const BasicVar<T>& output, const BasicVar<T>&) const {
    if (state_->blocks[block_] == 0) return output;
    const auto a = std::exchange(state_->attention[block_], {});
    const Index batch = a.dim(0), width = output.cols();
    const auto y = selection::fuse_tokens(reshape(output, {batch, output.rows() / batch, width}), a,
                                          keep_rate_);
    return reshape(y, {y.rows(), width});
  }
  std::vector<AdapterTensor<T>> tensors() const { return {}; }

 private:
  std::shared_ptr<FusedTokens<T>> state_;
  std::size_t block_;
  double keep_rate_;
};

/// TR-PTS in training: the first steps only score, then places and token layers are fixed.
template <std::floating_point T>
class TRPTSProcedure final : public Procedure<T> {
 public:
  TRPTSProcedure(const TRPTSConfig& config, std::vector<BasicSparseDelta<T>*> deltas,
                 std::shared_ptr<FusedTokens<T>> tokens)
      : config_(config), deltas_(std::move(deltas)), tokens_(std::move(tokens)) {}

  void before_step(const StepInfo& info) override {
    if (info.step <= config_.score_steps && sums_.empty() && !selection::any_chosen(deltas_))
      begin();
  }
  void after_backward(const StepInfo& info) override {
    if (sums_.empty() || info.step < config_.score_steps) return;
    std::vector<BasicTensor<T>> fisher;
    for (const auto& sum : sums_) fisher.push_back(sum->sum());
    const auto budgets = selection::trpts_budgets(fisher, config_.top_percent, config_.c_min);
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      deltas_[i]->observe({});
      deltas_[i]->select(selection::trpts_places(
          fisher[i], config_.connections > 0 ? config_.connections : budgets.connections[i]));
    }
    sums_.clear();
    if (tokens_ == nullptr || !config_.token_layers.is_number()) return;
    std::map<Index, double> shares;
    for (std::size_t i = 0; i < deltas_.size(); ++i)
      if (const Index block = layer_of(deltas_[i]->path()); block >= 0)
        shares[block] += budgets.share[i];
    std::vector<std::pair<double, Index>> order;
    for (const auto& [block, share] : shares) order.emplace_back(share, block);
    std::sort(order.begin(), order.end());
    layers_.clear();
    for (const auto& [share, block] : order)
      if (static_cast<double>(layers_.size()) < config_.token_layers.number())
        layers_.push_back(block);
    std::sort(layers_.begin(), layers_.end());
    tokens_->set(layers_);
  }
  void update_config(ConfigValue::Map& map) const override {
    if (layers_.empty()) return;
    ConfigValue::List list;
    for (const Index block : layers_) list.emplace_back(block);
    map["token_layers"] = list;
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (std::size_t i = 0; i < sums_.size(); ++i)
      detail::keep_values(all, std::to_string(i), sums_[i]->sum());
    if (!layers_.empty()) all["layers"] = std::vector<double>(layers_.begin(), layers_.end());
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (auto* delta : deltas_) delta->observe({});
    sums_.clear();
    layers_.clear();
    if (const auto it = all.find("layers"); it != all.end()) {
      for (const double block : it->second) layers_.push_back(static_cast<Index>(block));
      if (tokens_ != nullptr) tokens_->set(layers_);
      return;
    }
    if (!all.contains("0")) return;
    begin();
    for (std::size_t i = 0; i < sums_.size(); ++i)
      if (auto sum = detail::kept_values<T>(all, std::to_string(i), sums_[i]->sum().shape()))
        sums_[i]->set_sum(std::move(sum));
  }

 private:
  void begin() {
    for (auto* delta : deltas_) sums_.push_back(selection::observe_gradients(*delta, true));
  }

  TRPTSConfig config_;
  std::vector<BasicSparseDelta<T>*> deltas_;
  std::shared_ptr<FusedTokens<T>> tokens_;
  std::vector<std::shared_ptr<selection::GradientSum<T>>> sums_;
  std::vector<Index> layers_;
};

/// TR-PTS: in every row of a matrix the few elements with the largest Fisher information are
/// trained, more of them in the matrices that have more of the best elements of all; in the blocks
/// that have least of them the tokens of an image which the class token looks at least are fused
/// into one.
///
/// Trained: Σ out C, C from selection::trpts_budgets or `connections`. The first `score_steps`
/// steps score and move nothing; until then the identity. Token layers exist in models with one
/// class token in front of the patches; in others only the parameters are chosen. Does not merge
/// where tokens are fused. Source: Luo et al. 2025 (arXiv:2507.22872), sections 3.2 and 3.3. Labels
/// of the data stand for those of the model in the Fisher information. Tensors: sparse_indices,
/// sparse_values.
template <std::floating_point T>
struct TRPTSMethod {
  using Scalar = T;
  using Config = TRPTSConfig;
  static MethodInfo info() {
    return {.peft_type = "TRPTS",
            .name = "TR-PTS",
            .family = "selection",
            .paper = "arXiv:2507.22872",
            .sites = "linear, conv",
            .parameters = "; out C, C by the Fisher information",
            .merge_unless = "tokens of images are fused",
            .in_peft = false,
            .starts_empty = "its procedure selects in the first steps"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config&, const LinearSiteInfo<T>& site,
                                               InitContext<T>&) {
    return linear_part(BasicSparseDelta<T>(site));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table, InitContext<T>&) {
    const auto deltas = selection::sparse_deltas(set.parts());
    if (deltas.empty()) return;
    std::shared_ptr<FusedTokens<T>> tokens;
    if (config.fuses() && table.prompt != nullptr && table.prompt->in_front() == 1) {
      std::vector<BasicHiddenSite<T>*> blocks;
      for (auto* site : table.hidden)
        if (site->role() == HiddenRole::block) blocks.push_back(site);
      tokens = std::make_shared<FusedTokens<T>>();
      tokens->blocks.assign(blocks.size(), 0);
      tokens->attention.resize(blocks.size());
      if (!config.token_layers.is_number()) tokens->set(config.listed_layers());
      for (auto* site : table.attention) {
        auto seen = std::make_shared<BasicClassAttention<T>>(tokens, site->layer);
        site->adapters().push_back({set.name(), seen});
        set.add_part(site->path(), seen);
        auto fusion = hidden_part(BasicTokenFusion<T>(tokens, site->layer, config.keep_rate));
        auto* block = blocks.at(static_cast<std::size_t>(site->layer));
        block->adapters().push_back({set.name(), fusion});
        set.add_part(block->path(), fusion);
      }
    }
    set.set_procedure(std::make_unique<TRPTSProcedure<T>>(config, deltas, tokens));
  }
};

}  // namespace graft::inline v0_1
