#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/layers/language_head.hpp"

namespace graft::inline v0_1 {

/// Configuration of ShadowPEFT; fields as in PEFT's ShadowConfig.
struct ShadowConfig {
  TargetModules target_modules = {};  ///< whole blocks ("model.layers.3"); empty: all
  Index rank = 8;
  double shadow_alpha = 0.1;
  double dropout = 0.2;
  bool init_weights = true;             ///< W_up starts as zeros
  std::string shadow_model = "mirror";  ///< other values are not supported
  std::optional<Index> shadow_num_hidden_layers = {};
  std::optional<Index> shadow_hidden_size = {};
  std::optional<Index> shadow_num_attention_heads = {};
  std::optional<Index> shadow_intermediate_size = {};
  bool share_embeddings = true;
  std::optional<Index> update_hidden_size = {};
  double auxiliary_loss_weight = 0.05;
  Selection select = {};

  static constexpr const char* kPeftType = "SHADOW";

  template <class Visitor>
  void fields(Visitor& v) {
    v("target_modules", target_modules);
    v("r", rank);
    v("shadow_alpha", shadow_alpha);
    v("shadow_dropout", dropout);
    v("init_weights", init_weights);
    v("shadow_model", shadow_model);
    v("shadow_num_hidden_layers", shadow_num_hidden_layers);
    v("shadow_hidden_size", shadow_hidden_size);
    v("shadow_num_attention_heads", shadow_num_attention_heads);
    v("shadow_intermediate_size", shadow_intermediate_size);
    v("share_embeddings", share_embeddings);
    v("update_hidden_size", update_hidden_size);
    v("auxiliary_loss_weight", auxiliary_loss_weight);
    v("exclude_modules", select.exclude_modules);
    nullable_field(v, "layers_to_transform", select.layers_to_transform);
    nullable_field(v, "layers_pattern", select.layers_pattern);
    nullable_field(v, "modules_to_save", select.modules_to_save);
  }
  /// @throws ValueError for sizes below one and for a shadow that is no mirror.
  void validate() const {
    if (rank < 1 || shadow_num_hidden_layers.value_or(1) < 1 ||
        shadow_hidden_size.value_or(1) < 1 || shadow_intermediate_size.value_or(1) < 1 ||
        shadow_num_attention_heads.value_or(1) < 1)
      throw ValueError("ShadowPEFT: r and the sizes of the shadow are at least 1");
    if (shadow_model != "mirror")
      throw ValueError(concat("ShadowPEFT: shadow_model '", shadow_model,
                              "' is not supported, expected mirror; a shadow that was pretrained "
                              "apart can be loaded from an adapter's file only"));
  }
};

/// What ShadowPEFT has at one block: the injection into its input and the update after it.
template <std::floating_point T>
class ShadowBlock final : public AdapterPart<T> {
 public:
  ShadowBlock(const ShadowConfig& config, Index width, InitContext<T>& context) {
    const Index hidden = config.update_hidden_size.value_or(config.rank);
    auto& g = context.generator;
    const auto matrix = [&](Index out, Index in) {
      return context.loading ? BasicTensor<T>::zeros({out, in})
                             : detail::kaiming_uniform_tensor<T>(g, {out, in}, in);
    };
    const auto vector = [&](Index out, Index in) {
      auto t = BasicTensor<T>::zeros({out});
      const double bound = 1 / std::sqrt(static_cast<double>(in));
      if (!context.loading) g.uniform(t.data(), t.size(), -bound, bound);
      return t;
    };
    const auto put = [&](std::string name, BasicTensor<T> value) {
      AdapterTensor<T> tensor;
      tensor.name = std::move(name);
      tensor.parameter = BasicParameter<T>(std::move(value));
      tensors_.push_back(std::move(tensor));
    };
    put("shadow_down.default.weight", matrix(config.rank, width));
    auto up = matrix(width, config.rank);
    if (config.init_weights) up = BasicTensor<T>::zeros({width, config.rank});
    put("shadow_up.default.weight", std::move(up));
    for (const char* net : {"shadow_update_transform", "shadow_update_gate"}) {
      put(concat(net, ".default.0.weight"), matrix(hidden, width));
      put(concat(net, ".default.0.bias"), vector(hidden, width));
      put(concat(net, ".default.2.weight"), matrix(width, hidden));
      put(concat(net, ".default.2.bias"), vector(width, hidden));
    }
  }
  std::vector<AdapterTensor<T>> tensors() const override { return tensors_; }
  std::string merge_reason() const override {
    return "ShadowPEFT changes hidden states along a path that depends on the input; that is no "
           "change of a weight";
  }

  /// h + alpha · up(down(drop(h − s))).
  BasicVar<T> inject(const BasicVar<T>& h, const BasicVar<T>& s, const ShadowConfig& config) const {
    const auto low = product(dropout(sub(h, s), config.dropout), 0);
    return add(h, scale(product(low, 1), static_cast<T>(config.shadow_alpha)));
  }
  /// (1 − g) s + g t, t = T(h), g = σ(G(h)).
  BasicVar<T> update(const BasicVar<T>& h, const BasicVar<T>& s) const {
    const auto candidate = network(h, 2), gate = sigmoid(network(h, 6));
    return add(s, mul(gate, sub(candidate, s)));
  }

 private:
  BasicVar<T> product(const BasicVar<T>& x, std::size_t weight) const {
    return matmul(x, x.tape().parameter(tensors_[weight].parameter), Transpose::no, Transpose::yes);
  }
  /// Linear, GELU, Linear, from this tensor on.
  BasicVar<T> network(const BasicVar<T>& x, std::size_t first) const {
    auto& tape = x.tape();
    const auto h = gelu(add(product(x, first), tape.parameter(tensors_[first + 1].parameter)));
    return add(product(h, first + 2), tape.parameter(tensors_[first + 3].parameter));
  }

  std::vector<AdapterTensor<T>> tensors_;
};

/// The shadow: a small stack of blocks beside the model, and its state that goes along with the
/// hidden states.
template <std::floating_point T>
class ShadowStack final : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  using Blocks = std::map<Index, std::shared_ptr<ShadowBlock<T>>>;

  ShadowStack(ShadowConfig config, const std::string& name, const BasicSiteTable<T>& table,
              Blocks blocks, InitContext<T>& context)
      : config_(std::move(config)),
        blocks_(std::move(blocks)),
        embedding_(table.embedding.front()),
        width_(table.info.hidden_size) {
    for (const auto* site : table.linear)
      if (!table.info.output_layers.empty() && site->path() == table.info.output_layers.front())
        head_ = site;
    MirrorSizes sizes;
    sizes.layers = config_.shadow_num_hidden_layers.value_or(1);
    sizes.hidden_size = config_.shadow_hidden_size;
    sizes.heads = config_.shadow_num_attention_heads;
    sizes.intermediate_size = config_.shadow_intermediate_size;
    mirror_ = table.mirror(sizes);
    auto& own = mirror_->sites();
    const Index shadow_width = own.info.hidden_size;
    shares_ = config_.share_embeddings && shadow_width == width_;
    const auto normal = [&](const Shape& shape) {
      return context.loading ? BasicTensor<T>::zeros(shape)
                             : detail::normal_tensor<T>(context.generator, shape, 0.02);
    };
    const auto keep = [&](const std::string& path, auto& site, auto part) {
      for (auto& tensor : part->tensors()) {
        tensor.name =
            concat("shadow_backbone.default.", path.substr(path.find('.') + 1), ".", tensor.name);
        tensor.scope = AdapterTensor<T>::Scope::model;
        tensors_.push_back(std::move(tensor));
      }
      site.adapters().push_back({name, part});
      site.activate({name});
    };
    for (auto* site : own.embedding)
      if (!shares_)
        keep(site->path(), *site,
             std::make_shared<FullEmbedding<T>>(normal({site->table().rows(), site->table().dim()}),
                                                site->padding_index));
    for (auto* site : own.linear) {
      if (own.info.is_output_layer(site->path())) continue;
      keep(site->path(), *site,
           std::make_shared<FullLinear<T>>(normal({site->out_features(), site->in_features()}),
                                           site->base().bias()));
    }
    for (auto* site : own.norm)
      keep(site->path(), *site, std::make_shared<FullNorm<T>>(site->norm()));
    if (shadow_width == width_) return;
    AdapterTensor<T> projection;
    projection.name = "shadow_projection.default.weight";
    projection.scope = AdapterTensor<T>::Scope::model;
    projection.parameter = BasicParameter<T>(
        detail::kaiming_uniform_tensor<T>(context, {width_, shadow_width}, shadow_width));
    projection_ = projection.parameter;
    tensors_.push_back(std::move(projection));
  }
  std::vector<AdapterTensor<T>> tensors() const override { return tensors_; }

  void begin(BasicTape<T>& tape) const override {
    const auto* context = tape.template context<ForwardContext>();
    if (context == nullptr || context->ids.empty())
      throw ValueError("ShadowPEFT: the shadow reads tokens, the input has none");
    const Index batch = context->batch, tokens = std::ssize(context->ids) / batch;
    // With a cache the shadow reads the whole text again: it is small.
    const Index past = std::ssize(context->past_ids) / batch;
    std::vector<std::int32_t> ids;
    std::vector<unsigned char> mask;
    for (Index b = 0; b < batch; ++b) {
      const auto copy = [&](const auto& from, Index count, auto& to) {
        to.insert(to.end(), from.begin() + b * count, from.begin() + (b + 1) * count);
      };
      copy(context->past_ids, past, ids);
      copy(context->ids, tokens, ids);
      if (context->token_mask.empty()) continue;
      mask.insert(mask.end(), static_cast<std::size_t>(past), static_cast<unsigned char>(1));
      copy(context->token_mask, tokens, mask);
    }
    auto x = shares_ ? (*embedding_)(tape, ids) : mirror_->embed(tape, ids);
    if (shares_ && embedding_->embed_scale != T{1}) x = scale(x, embedding_->embed_scale);
    auto s = mirror_->run(x, batch, mask, nullptr);
    if (projection_) s = matmul(s, tape.parameter(projection_), Transpose::no, Transpose::yes);
    if (past > 0)
      s = reshape(slice(reshape(s, {batch, past + tokens, width_}), 1, past, tokens),
                  {batch * tokens, width_});
    state_ = seed_ = s;
    labels_.clear();
    if (past > 0 || context->labels.empty()) return;
    // Each token predicts the one after it.
    labels_ = context->labels;
    for (Index b = 0; b < batch; ++b) {
      const auto row = labels_.begin() + b * tokens;
      std::copy(row + 1, row + tokens, row);
      row[tokens - 1] = kIgnoredLabel;
    }
  }
  BasicVar<T> enter(Index layer, const BasicVar<T>& x) const override {
    const auto it = blocks_.find(layer);
    if (it == blocks_.end()) return x;
    if (x.rows() != state_.rows())
      throw ShapeError(concat("ShadowPEFT: ", x.rows(), " hidden states, the shadow has ",
                              state_.rows(), "; virtual tokens have no shadow"));
    return it->second->inject(x, state_, config_);
  }
  void leave(Index layer, const BasicVar<T>& x) const override {
    const auto it = blocks_.find(layer);
    // Nothing reads what the last block would make of it.
    if (it == blocks_.end() || std::next(it) == blocks_.end()) return;
    state_ = it->second->update(x, state_);
  }
  /// auxiliary_loss_weight · cross-entropy of head(s⁰), what makes the shadow a model of its own.
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const override {
    const auto s = std::exchange(seed_, BasicVar<T>{});
    state_ = {};
    if (!s || &s.tape() != &tape || head_ == nullptr || labels_.empty() ||
        config_.auxiliary_loss_weight <= 0)
      return {};
    return scale(linear_cross_entropy(s, *head_, std::span<const std::int64_t>(labels_)),
                 static_cast<T>(config_.auxiliary_loss_weight));
  }

 private:
  ShadowConfig config_;
  Blocks blocks_;
  const BasicEmbeddingSite<T>* embedding_;
  const BasicLinearSite<T>* head_ = nullptr;
  Index width_;
  std::unique_ptr<MirrorStack<T>> mirror_;
  bool shares_ = true;
  BasicParameter<T> projection_;
  std::vector<AdapterTensor<T>> tensors_;
  mutable BasicVar<T> state_, seed_;
  mutable std::vector<std::int64_t> labels_;
};

/// ShadowPEFT: a small trained network s⁰ = P · backbone(embeddings) runs beside the frozen model;
/// at each block h ← h + alpha · W_up W_down drop(h − s), then the block, then s ← (1 − g) s + g t
/// with t = T(h), g = σ(G(h)), T and G: Linear, GELU, Linear.
///
/// The backbone is a stack of blocks of the model's own kind (`mirror`; LLaMA-like models), by
/// default one of the same width; with another width it has an embedding of its own and a
/// projection P. W_down: [r, d] and W_up: [d, r] a block, T and G: 2 u d + u + d each, u =
/// update_hidden_size or r. Loss: auxiliary_loss_weight · cross-entropy of head(s⁰) is added. The
/// identity at the start (W_up = 0); does not merge. The blocks must be neighbours. Source:
/// ShadowPEFT as PEFT 0.21 has it (equations 1 to 9). Files say `default` in every key, whatever
/// the adapter is called. Deviations: only a mirror, only language models; PEFT allows one active
/// adapter, here several act one after the other, each with a state of its own;
/// layers_to_transform chooses blocks, where PEFT takes all without target_modules and none by the
/// ends of their paths.
template <std::floating_point T>
struct ShadowMethod {
  using Scalar = T;
  using Config = ShadowConfig;
  /// Blocks, not linear layers.
  static constexpr bool kOwnModules = true;

  static Config example() {
    Config config;
    config.rank = 4;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "SHADOW",
            .name = "ShadowPEFT",
            .family = "representation",
            .paper = "PEFT 0.21, ShadowPEFT",
            .sites = "blocks",
            .parameters = "; 2 r d + 4 u d + 2 u + 2 d a block, and the backbone",
            .mergeable = false};
  }
  static bool targets(const Config&, const std::string&) { return true; }

  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    config.validate();
    if (table.stack == nullptr || !table.mirror || table.pass == nullptr || table.embedding.empty())
      throw ValueError(concat("ShadowPEFT: the model (", table.info.architecture,
                              ") cannot make a stack of blocks like its own; LLaMA-like language "
                              "models can"));
    typename ShadowStack<T>::Blocks blocks;
    std::vector<std::string> paths;
    for (const auto* site : table.hidden) {
      if (site->role() != HiddenRole::block) continue;
      paths.push_back(site->path());
      const auto& targets = config.target_modules;
      const auto& excluded = config.select.exclude_modules;
      if ((!targets.empty() && !matches(targets, site->path())) ||
          (!excluded.empty() && matches(excluded, site->path())) ||
          !takes_layer(config.select, targets, site->path()))
        continue;
      auto block = std::make_shared<ShadowBlock<T>>(config, table.info.hidden_size, context);
      blocks.emplace(layer_of(site->path()), block);
      set.add_part(site->path(), block);
    }
    if (blocks.empty())
      throw ValueError(concat("ShadowPEFT: target modules match none of the ", paths.size(),
                              " blocks (", paths.empty() ? "" : paths.front(), ", …)"));
    if (blocks.rbegin()->first - blocks.begin()->first + 1 != std::ssize(blocks))
      throw ValueError("ShadowPEFT: the blocks are no neighbours");
    if (config.target_modules.empty()) {
      ConfigValue::List names;
      for (const auto& [layer, block] : blocks)
        names.emplace_back(paths[static_cast<std::size_t>(layer)]);
      set.mutable_config()["target_modules"] = names;
    }
    const auto stack =
        std::make_shared<ShadowStack<T>>(config, set.name(), table, std::move(blocks), context);
    table.stack->adapters().push_back({set.name(), stack});
    set.add_part("", stack);
  }
};

}  // namespace graft::inline v0_1
