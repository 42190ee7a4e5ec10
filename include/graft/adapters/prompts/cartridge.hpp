#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prefix_tuning.hpp"

namespace graft::inline v0_1 {

/// Configuration of Cartridge; fields as in PEFT's CartridgeConfig.
struct CartridgeConfig {
  PromptFields prompt;
  Index num_frozen_tokens = 1;
  std::vector<std::string> modules_to_save;

  static constexpr const char* kPeftType = "CARTRIDGE";

  template <class Visitor>
  void fields(Visitor& v) {
    prompt.fields(v);
    v("num_frozen_tokens", num_frozen_tokens);
    nullable_field(v, "modules_to_save", modules_to_save);
  }
  /// @throws ValueError without virtual tokens, or if more are frozen than there are.
  void validate() const {
    prompt.validate("Cartridge");
    if (num_frozen_tokens < 0 || num_frozen_tokens > prompt.tokens())
      throw ValueError(concat("Cartridge: num_frozen_tokens ", num_frozen_tokens, " of ",
                              prompt.tokens(), " virtual tokens"));
  }
};

namespace detail {

/// A table whose first rows stay as they are.
template <std::floating_point T>
class CartridgeEncoder final : public PromptEncoder<T> {
 public:
  CartridgeEncoder(const Shape& shape, Index frozen, InitContext<T>& context) {
    if (frozen > 0)
      frozen_ = BasicParameter<T>(embedding_values<T>({frozen, shape[1]}, context), false);
    trained_ = BasicParameter<T>(embedding_values<T>({shape[0] - frozen, shape[1]}, context));
  }
  std::vector<std::pair<std::string, BasicParameter<T>>> tensors() const override {
    std::vector<std::pair<std::string, BasicParameter<T>>> list{{"trainable_embedding", trained_}};
    if (frozen_) list.emplace_back("frozen_embedding", frozen_);
    return list;
  }
  BasicVar<T> columns(BasicTape<T>& tape, Index first, Index count) const override {
    const auto own = slice(tape.parameter(trained_), 1, first, count);
    if (!frozen_) return own;
    return concat_along(
        0, std::vector<BasicVar<T>>{slice(tape.constant(frozen_.value()), 1, first, count), own});
  }
  bool adopt(const BasicTensor<T>& table) const override {
    const Index frozen = frozen_ ? frozen_.shape()[0] : 0;
    if (frozen_) frozen_.assign(table.slice_rows(0, frozen).clone());
    trained_.assign(table.slice_rows(frozen, table.rows() - frozen).clone());
    return true;
  }

 private:
  BasicParameter<T> frozen_, trained_;
};

}  // namespace detail

/// Cartridge: prefix tuning whose first rows are frozen (an attention sink), usually started from
/// the keys and values of a text.
///
/// Trained: (tokens - frozen) · 2 · layers · width of the keys. Not the identity at the start; does
/// not merge. Source: Eyuboglu et al. 2025, arXiv:2506.06266. Tensor in finished files:
/// prompt_embeddings, frozen rows first; as in PEFT it is taken apart again when loaded.
template <std::floating_point T>
struct CartridgeMethod {
  using Scalar = T;
  using Config = CartridgeConfig;
  static Config example() {
    Config config;
    config.prompt.num_virtual_tokens = 4;
    return config;
  }
  static MethodInfo info() {
    return {
        .peft_type = "CARTRIDGE",
        .name = "Cartridge",
        .family = "prompts",
        .paper = "arXiv:2506.06266",
        .sites = "attention",
        .parameters = "once 2 (num_virtual_tokens - num_frozen_tokens) layers kv_heads head_dim",
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
        "Cartridge", config.prompt, site, context, [&](const Shape& shape) {
          return PromptTable<T>(shape, std::make_unique<detail::CartridgeEncoder<T>>(
                                           shape, config.num_frozen_tokens, context));
        });
  }
  template <class Set, class Table>
  static void finish(Config config, Set& set, const Table& table, InitContext<T>&) {
    config.prompt.follow(table.info, true);
    detail::keep_config(config, set);
  }
};

}  // namespace graft::inline v0_1
