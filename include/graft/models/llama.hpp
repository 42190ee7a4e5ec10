#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/models/causal_model.hpp"
#include "graft/models/weights.hpp"

namespace graft::inline v0_1::models {

/// Sizes of a LLaMA-like decoder (LLaMA, Mistral, SmolLM, Qwen2, Qwen3).
struct LlamaConfig {
  std::string model_type = "llama";
  Index vocabulary = 0;
  Index hidden_size = 0;
  Index intermediate_size = 0;
  Index layers = 0;
  Index heads = 0;
  Index kv_heads = 0;
  Index head_dim = 0;
  Index max_positions = 0;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  bool tied_head = true;
  bool head_norm = false;                 ///< norms over each head of q and k (Qwen3)
  Index window = 0;                       ///< sliding window of the attention; 0: none
  std::vector<bool> full_attention = {};  ///< by layer, which have no window; empty: none of them
  kernels::Activation activation = kernels::Activation::silu;
  ClassifierHead classifier = {};
};

/// h = h + attention(norm(h)); h = h + mlp(norm(h)), then a norm and the head (Touvron et al. 2023,
/// arXiv:2302.13971).
///
/// Sites: model.embed_tokens, model.layers.N.{input_layernorm, self_attn.{q,k,v,o}_proj, self_attn,
/// post_attention_layernorm, mlp.{gate,up,down}_proj, mlp}, model.norm, lm_head.
template <std::floating_point T>
class BasicLlama final : public BasicCausalModel<T> {
 public:
  BasicLlama(const LlamaConfig& config, const BasicWeights<T>& weights)
      : config_(config), rope_(config.rope) {
    if (config.heads <= 0 || config.kv_heads <= 0 || config.heads % config.kv_heads != 0 ||
        config.layers <= 0 ||
        (!config.full_attention.empty() && std::ssize(config.full_attention) != config.layers))
      throw ValueError(concat("llama: ", config.heads, " heads, ", config.kv_heads,
                              " key/value heads, ", config.full_attention.size(),
                              " layer types for ", config.layers, " layers"));
    this->max_positions = config.max_positions;
    this->make_embedding("model.embed_tokens", config.vocabulary, config.hidden_size,
                         config.tied_head, weights);
    this->exclude_padding(config.classifier);
    for (Index l = 0; l < config.layers; ++l) {
      blocks_.push_back(std::make_unique<Block>());
      Block& block = *blocks_.back();
      const std::string path = concat("model.layers.", l);
      const Index q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
      const auto linear = [&](const std::string& name, Index out, Index in) {
        return BasicLinearSite<T>(path + name, weights.linear(path + name, out, in));
      };
      auto& attention = block.attention;
      attention.q_proj = linear(".self_attn.q_proj", q, config.hidden_size);
      attention.k_proj = linear(".self_attn.k_proj", kv, config.hidden_size);
      attention.v_proj = linear(".self_attn.v_proj", kv, config.hidden_size);
      attention.o_proj = linear(".self_attn.o_proj", config.hidden_size, q);
      attention.site = {path + ".self_attn", l, config.heads, config.kv_heads, config.head_dim};
      attention.scale = static_cast<T>(1 / std::sqrt(static_cast<double>(config.head_dim)));
      const bool full =
          !config.full_attention.empty() && config.full_attention[static_cast<std::size_t>(l)];
      attention.window = full ? 0 : config.window;
      attention.head_norm = config.head_norm;
      if (config.head_norm) {
        attention.q_norm = norm_site(weights, path + ".self_attn.q_norm", config.head_dim);
        attention.k_norm = norm_site(weights, path + ".self_attn.k_norm", config.head_dim);
      }
      block.mlp.gate_proj = linear(".mlp.gate_proj", config.intermediate_size, config.hidden_size);
      block.mlp.up_proj = linear(".mlp.up_proj", config.intermediate_size, config.hidden_size);
      block.mlp.down_proj = linear(".mlp.down_proj", config.hidden_size, config.intermediate_size);
      block.mlp.activation = config.activation;
      block.input_norm = norm_site(weights, path + ".input_layernorm", config.hidden_size);
      block.post_norm = norm_site(weights, path + ".post_attention_layernorm", config.hidden_size);
      block.after_attention = {path + ".self_attn", config.hidden_size, HiddenRole::attention,
                               "o_proj"};
      block.after_mlp = {path + ".mlp", config.hidden_size, HiddenRole::feed_forward, "down_proj"};
      block.after_block = {path, config.hidden_size, HiddenRole::block};
    }
    this->norm = norm_site(weights, "model.norm", config.hidden_size);
    this->make_head(config.classifier, config.tied_head, config.vocabulary, weights);
    list_sites();
  }

  const LlamaConfig& config() const { return config_; }

 private:
  struct Block {
    BasicNormSite<T> input_norm, post_norm;
    RotaryAttention<T> attention;
    GatedMlp<T> mlp;
    BasicHiddenSite<T> after_attention, after_mlp, after_block;

    BasicVar<T> attention_part(const BasicVar<T>& x, const DecoderPass<T>& pass,
                               const BasicRope<T>& rope) const {
      const auto a = input_norm(x);
      return add(x, after_attention(a, attention(a, pass, rope), x));
    }
    BasicVar<T> feed_forward_part(const BasicVar<T>& h, const BasicVar<T>& x) const {
      const auto m = post_norm(h);
      const bool ends_block = after_mlp.is_plain() && after_block.is_plain();
      return after_block(x, add(h, after_mlp(m, mlp(m, ends_block), h)));
    }
  };
  struct Run {
    const BasicRope<T>* rope;

    BasicVar<T> operator()(const Block& b, const BasicVar<T>& x, const DecoderPass<T>& pass) const {
      return b.feed_forward_part(b.attention_part(x, pass, *rope), x);
    }
    BasicVar<T> attention(const Block& b, const BasicVar<T>& x, const DecoderPass<T>& pass) const {
      return b.attention_part(x, pass, *rope);
    }
    BasicVar<T> feed_forward(const Block& b, const BasicVar<T>& h) const {
      return b.feed_forward_part(h, h);
    }
  };

  BasicVar<T> blocks(BasicVar<T> x, const DecoderPass<T>& pass) const override {
    return this->norm(this->run_stack(x, blocks_, pass, Run{&rope_}));
  }

  BasicNormSite<T> norm_site(const BasicWeights<T>& weights, const std::string& path,
                             Index width) const {
    BasicNorm<T> rms;
    rms.weight = weights.tensor(path + ".weight", {width});
    rms.eps = static_cast<T>(config_.rms_norm_eps);
    return {path, rms};
  }

  void list_sites() {
    auto& table = this->sites_;
    table = {};
    table.info = {config_.model_type, config_.hidden_size, static_cast<Index>(blocks_.size()),
                  config_.heads,      config_.kv_heads,    config_.head_dim,
                  config_.vocabulary, {this->head.path()}};
    table.info.activation = config_.activation;
    table.embedding.push_back(&this->embed_tokens);
    table.prompt = &this->prompt;
    table.pass = &this->pass_site;
    table.stack = &this->stack;
    table.mirror = [this](const MirrorSizes& sizes) { return mirror(sizes); };
    for (const auto& block : blocks_) {
      auto& a = block->attention;
      for (auto* site : {&a.q_proj, &a.k_proj, &a.v_proj, &a.o_proj, &block->mlp.gate_proj,
                         &block->mlp.up_proj, &block->mlp.down_proj})
        table.linear.push_back(site);
      if (a.head_norm) {
        table.norm.push_back(&a.q_norm);
        table.norm.push_back(&a.k_norm);
      }
      table.norm.push_back(&block->input_norm);
      table.norm.push_back(&block->post_norm);
      table.attention.push_back(&a.site);
      table.hidden.push_back(&block->after_attention);
      table.hidden.push_back(&block->after_mlp);
      table.hidden.push_back(&block->after_block);
    }
    table.norm.push_back(&this->norm);
    table.linear.push_back(&this->head);
    table.replicate_layers = [this](const std::vector<std::pair<Index, Index>>& ranges) {
      replicate(ranges);
    };
  }

  std::unique_ptr<MirrorStack<T>> mirror(const MirrorSizes& sizes) const {
    auto config = config_;
    config.layers = sizes.layers;
    if (!config.full_attention.empty())
      config.full_attention.resize(static_cast<std::size_t>(sizes.layers),
                                   config.full_attention.back());
    config.hidden_size = reduced(sizes.hidden_size.value_or(config.hidden_size), sizes.reduction);
    config.heads = sizes.heads.value_or(config.heads);
    config.intermediate_size =
        sizes.intermediate_size.value_or(config.intermediate_size) / sizes.reduction;
    if (sizes.reduction != 1) {
      // Pairs of a head's elements are rotated.
      config.head_dim = 2 * reduced(config.head_dim / 2, sizes.reduction);
      config.rope.dim = 2 * reduced(config.rope.dim / 2, sizes.reduction);
    }
    config.tied_head = true;
    config.classifier = {};
    if (!sizes.embeddings) config.vocabulary = 1;
    const auto& a = blocks_.front()->attention;
    const bool qkv_bias = static_cast<bool>(a.q_proj.base().bias()),
               o_bias = static_cast<bool>(a.o_proj.base().bias());
    const ZeroWeights<T> weights([=](const std::string& name) {
      if (name.find("self_attn.") == std::string::npos || name.find("norm") != std::string::npos)
        return false;
      return name.find("o_proj") == std::string::npos ? qkv_bias : o_bias;
    });
    return std::make_unique<typename BasicCausalModel<T>::Mirror>(
        std::make_unique<BasicLlama>(config, weights));
  }

  void replicate(const std::vector<std::pair<Index, Index>>& ranges) {
    std::vector<std::unique_ptr<Block>> rebuilt;
    for (const auto& [start, end] : ranges) {
      if (start < 0 || end > static_cast<Index>(blocks_.size()) || start >= end)
        throw ValueError(
            concat("layer_replication: [", start, ", ", end, ") of ", blocks_.size(), " layers"));
      for (Index l = start; l < end; ++l) {
        auto block = std::make_unique<Block>(*blocks_[static_cast<std::size_t>(l)]);
        const auto index = static_cast<Index>(rebuilt.size());
        const std::string path = concat("model.layers.", index);
        auto& a = block->attention;
        a.q_proj = {path + ".self_attn.q_proj", a.q_proj.base()};
        a.k_proj = {path + ".self_attn.k_proj", a.k_proj.base()};
        a.v_proj = {path + ".self_attn.v_proj", a.v_proj.base()};
        a.o_proj = {path + ".self_attn.o_proj", a.o_proj.base()};
        a.q_norm = {path + ".self_attn.q_norm", a.q_norm.norm()};
        a.k_norm = {path + ".self_attn.k_norm", a.k_norm.norm()};
        a.site = {path + ".self_attn", index, a.site.heads, a.site.kv_heads, a.site.head_dim};
        block->mlp.gate_proj = {path + ".mlp.gate_proj", block->mlp.gate_proj.base()};
        block->mlp.up_proj = {path + ".mlp.up_proj", block->mlp.up_proj.base()};
        block->mlp.down_proj = {path + ".mlp.down_proj", block->mlp.down_proj.base()};
        block->input_norm = {path + ".input_layernorm", block->input_norm.norm()};
        block->post_norm = {path + ".post_attention_layernorm", block->post_norm.norm()};
        block->after_attention = {path + ".self_attn", config_.hidden_size, HiddenRole::attention,
                                  "o_proj"};
        block->after_mlp = {path + ".mlp", config_.hidden_size, HiddenRole::feed_forward,
                            "down_proj"};
        block->after_block = {path, config_.hidden_size, HiddenRole::block};
        rebuilt.push_back(std::move(block));
      }
    }
    blocks_ = std::move(rebuilt);
    list_sites();
  }

  LlamaConfig config_;
  BasicRope<T> rope_;
  std::vector<std::unique_ptr<Block>> blocks_;
};

using Llama = BasicLlama<float>;

#ifdef GRAFT_METHODS_COMPILED
extern template class BasicLlama<float>;
extern template class BasicLlama<double>;
#endif

}  // namespace graft::inline v0_1::models
