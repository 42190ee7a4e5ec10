#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prompt_table.hpp"

namespace graft::inline v0_1 {

/// Configuration of prefix tuning; fields as in PEFT's PrefixTuningConfig.
struct PrefixTuningConfig {
  PromptFields prompt;
  std::optional<Index> encoder_hidden_size;  ///< none: as wide as the keys
  bool prefix_projection = false;
  std::optional<std::string> init_weights;  ///< "zero": the prefix starts as zeros
  std::vector<std::string> modules_to_save;

  static constexpr const char* kPeftType = "PREFIX_TUNING";

  template <class Visitor>
  void fields(Visitor& v) {
    prompt.fields(v);
    v("encoder_hidden_size", encoder_hidden_size);
    v("prefix_projection", prefix_projection);
    v("init_weights", init_weights);
    nullable_field(v, "modules_to_save", modules_to_save);
  }
  /// @throws ValueError without virtual tokens or for an unknown start.
  void validate() const {
    prompt.validate("prefix tuning");
    if (init_weights && *init_weights != "zero")
      throw ValueError(
          concat("prefix tuning: init_weights '", *init_weights, "', expected zero or nothing"));
    if (encoder_hidden_size.value_or(1) < 1)
      throw ValueError(concat("prefix tuning: encoder_hidden_size ", *encoder_hidden_size));
  }
};

namespace detail {

/// Puts keys and values in front of those of an attention, for every row of the batch; they are
/// visible. key, value: [keys, width].
template <std::floating_point T>
void prepend_keys(AttentionCall<T>& call, const BasicVar<T>& key, const BasicVar<T>& value) {
  const Index n = key.rows(), batch = call.options.batch, keys = call.k.rows() / batch;
  const auto join = [&](const BasicVar<T>& x, const BasicVar<T>& own) {
    const Index width = x.cols();
    const auto rows = broadcast_to(reshape(own, {1, n, width}), {batch, n, width});
    return reshape(
        concat_along(1, std::vector<BasicVar<T>>{rows, reshape(x, {batch, keys, width})}),
        {batch * (n + keys), width});
  };
  call.k = join(call.k, key);
  call.v = join(call.v, value);
  if (!call.options.key_mask) return;
  auto mask = std::make_shared<std::vector<unsigned char>>(
      static_cast<std::size_t>(batch * (n + keys)), static_cast<unsigned char>(1));
  for (Index b = 0; b < batch; ++b)
    std::copy_n(call.options.key_mask->begin() + b * keys, keys,
                mask->begin() + b * (n + keys) + n);
  call.options.key_mask = std::move(mask);
}

}  // namespace detail

/// Keys and values in front of those of one attention: columns [key, key + width) and [value, value
/// + width) of a table, heads side by side.
template <std::floating_point T>
class PrefixPart final : public AttentionPart<T> {
 public:
  /// `owner`: this part lists the tensors of the table, which others share.
  PrefixPart(std::shared_ptr<PromptTable<T>> table, Index key, Index value, Index width, bool owner)
      : table_(std::move(table)), key_(key), value_(value), width_(width), owner_(owner) {}

  Index virtual_keys() const override { return table_->shape()[0]; }
  void before(AttentionCall<T>& call) const override {
    auto& tape = call.q.tape();
    const auto key = table_->columns(tape, key_, width_);
    detail::prepend_keys(call, key, table_->columns(tape, value_, width_));
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    return owner_ ? table_->tensors() : std::vector<AdapterTensor<T>>{};
  }
  std::vector<AdapterTensor<T>> file_tensors() const override {
    return owner_ ? table_->file_tensors() : std::vector<AdapterTensor<T>>{};
  }
  void before_load(const CheckpointShapes& shapes) override {
    if (owner_) table_->before_load(shapes);
  }
  void after_load() override {
    if (owner_) table_->after_load();
  }
  const PromptTable<T>& table() const { return *table_; }

 private:
  std::shared_ptr<PromptTable<T>> table_;
  Index key_, value_, width_;
  bool owner_;
};

namespace detail {

/// (E W₁ᵀ + b₁ -> tanh) W₂ᵀ + b₂, of which a layer asks for its own columns only.
template <std::floating_point T>
class PrefixEncoder final : public PromptEncoder<T> {
 public:
  /// @param dim  width of a row of E  @param zero  the table starts as zeros
  PrefixEncoder(const Shape& table, Index dim, Index hidden, bool zero, InitContext<T>& context)
      : embedding_(embedding_values<T>({table[0], dim}, context)),
        down_(hidden, dim, context),
        up_(table[1], hidden, context, zero) {}
  std::vector<std::pair<std::string, BasicParameter<T>>> tensors() const override {
    std::vector<std::pair<std::string, BasicParameter<T>>> list{{"embedding.weight", embedding_}};
    down_.list(list, "transform.0");
    up_.list(list, "transform.2");
    return list;
  }
  BasicVar<T> columns(BasicTape<T>& tape, Index first, Index count) const override {
    return up_(tanh(down_(tape.parameter(embedding_))), first, count);
  }

 private:
  BasicParameter<T> embedding_;
  PromptLayer<T> down_, up_;
};

/// The part of one attention, whose table `make` gives for the first one; null where the model has
/// no prefix. Columns: key and value of each layer in turn.
///
/// PEFT doubles the entries of an encoder-decoder model for its cross-attention and then hands four
/// to each layer: the decoder's layer l gets entries 4l and 4l + 1, modulo their number; the
/// encoder and the cross-attention get none.
template <std::floating_point T, class Make>
std::shared_ptr<AttentionPart<T>> prefix_part(const char* method, const PromptFields& prompt,
                                              const AttentionSiteInfo<T>& site,
                                              InitContext<T>& context, const Make& make) {
  const Index layers = *prompt.num_layers, width = prompt.dim();
  if (site.role != AttentionRole::self || site.layer >= layers) return nullptr;
  if (width != site.kv_heads * site.head_dim)
    throw ValueError(concat(method, ": keys of width ", width, ", ", site.path, " has ",
                            site.kv_heads, " heads of ", site.head_dim));
  bool first = false;
  const auto table = context.shared.object("prompt_table", [&] {
    first = true;
    return PromptTable<T>(make(Shape{prompt.tokens(), layers * 2 * width}));
  });
  Index entry = 2 * site.layer;
  if (*prompt.num_transformer_submodules == 2) entry = 4 * site.layer % (2 * layers);
  return std::make_shared<PrefixPart<T>>(table, entry * width, (entry + 1) * width, width, first);
}

}  // namespace detail

/// Prefix tuning: in each layer l attention sees [P_k,l; K] and [P_v,l; V], P: [tokens, layers · 2
/// · width of the keys] trained, or made by an MLP with tanh.
///
/// Trained: tokens · 2 · layers · width; with `prefix_projection` tokens · width + (width + 1) h +
/// (h + 1) · 2 · layers · width. Not the identity at the start; does not merge. Positions of the
/// text start after the prefix, whose keys are not rotated. Source: Li and Liang 2021,
/// arXiv:2101.00190. Tensor in finished files: prompt_embeddings = P; the MLP is lost there.
template <std::floating_point T>
struct PrefixTuningMethod {
  using Scalar = T;
  using Config = PrefixTuningConfig;
  static Config example() {
    Config config;
    config.prompt.num_virtual_tokens = 4;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "PREFIX_TUNING",
            .name = "Prefix tuning",
            .family = "prompts",
            .paper = "arXiv:2101.00190",
            .sites = "attention",
            .parameters = "once 2 tokens layers kv_heads head_dim, tokens = num_virtual_tokens",
            .mergeable = false,
            .path_prefix = "base_model.",
            .identity_at_init = false};
  }
  static bool targets(const Config&, const std::string&) { return true; }
  static std::shared_ptr<AttentionPart<T>> attention(Config config,
                                                     const AttentionSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    config.prompt.follow(site.model, true);
    return detail::prefix_part<T>(
        "prefix tuning", config.prompt, site, context, [&](const Shape& shape) {
          if (config.prefix_projection)
            return PromptTable<T>(shape,
                                  std::make_unique<detail::PrefixEncoder<T>>(
                                      shape, config.prompt.dim(),
                                      config.encoder_hidden_size.value_or(config.prompt.dim()),
                                      config.init_weights.has_value(), context));
          auto values = detail::embedding_values<T>(shape, context);
          return PromptTable<T>(config.init_weights ? BasicTensor<T>::zeros(shape)
                                                    : std::move(values));
        });
  }
  template <class Set, class Table>
  static void finish(Config config, Set& set, const Table& table, InitContext<T>&) {
    config.prompt.follow(table.info, true);
    config.encoder_hidden_size = config.encoder_hidden_size.value_or(config.prompt.dim());
    detail::keep_config(config, set);
  }
};

}  // namespace graft::inline v0_1
