#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/models/causal_model.hpp"
#include "graft/models/weights.hpp"

namespace graft::inline v0_1::models {

struct Gemma3Config {
  Index vocabulary = 0;
  Index hidden_size = 0;
  Index intermediate_size = 0;
  Index layers = 0;
  Index heads = 0;
  Index kv_heads = 0;
  Index head_dim = 0;
  Index max_positions = 0;
  Index window = 0;                  ///< of the layers with sliding attention
  std::vector<bool> full_attention;  ///< by layer
  double query_scalar = 0;           ///< scores are divided by its root
  double rms_norm_eps = 1e-6;
  double logit_cap = 0;  ///< > 0: logits become cap · tanh(logits / cap)
  bool tied_head = true;
  double norm_offset = 1;  ///< files of transformers hold weight - 1, GGUF files hold the weight
  RopeConfig full_rope, sliding_rope;
  kernels::Activation activation = kernels::Activation::gelu_tanh;
  ClassifierHead classifier = {};
};

/// Gemma 3, text part (Gemma Team 2025, arXiv:2503.19786): h = h + norm(attention(norm(h))); h = h
/// + norm(mlp(norm(h))), norms over each head of q and k, most layers with a sliding window,
/// embeddings times √hidden_size, tied head.
template <std::floating_point T>
class BasicGemma3 final : public BasicCausalModel<T> {
 public:
  BasicGemma3(const Gemma3Config& config, const BasicWeights<T>& weights)
      : config_(config), full_rope_(config.full_rope), sliding_rope_(config.sliding_rope) {
    if (config.heads <= 0 || config.kv_heads <= 0 || config.heads % config.kv_heads != 0 ||
        static_cast<Index>(config.full_attention.size()) != config.layers)
      throw ValueError(concat("gemma3: ", config.heads, " heads, ", config.kv_heads,
                              " key/value heads, ", config.full_attention.size(),
                              " layer types for ", config.layers, " layers"));
    const Index d = config.hidden_size;
    this->max_positions = config.max_positions;
    this->logit_cap = static_cast<T>(config.logit_cap);
    this->make_embedding("model.embed_tokens", config.vocabulary, d, config.tied_head, weights);
    this->exclude_padding(config.classifier);
    this->embed_tokens.embed_scale = static_cast<T>(std::sqrt(static_cast<double>(d)));
    for (Index l = 0; l < config.layers; ++l) {
      blocks_.push_back(std::make_unique<Block>());
      Block& b = *blocks_.back();
      const std::string path = concat("model.layers.", l);
      const Index q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
      const auto linear = [&](const char* name, Index out, Index in) {
        return BasicLinearSite<T>(path + name, weights.linear(path + name, out, in));
      };
      auto& a = b.attention;
      a.q_proj = linear(".self_attn.q_proj", q, d);
      a.k_proj = linear(".self_attn.k_proj", kv, d);
      a.v_proj = linear(".self_attn.v_proj", kv, d);
      a.o_proj = linear(".self_attn.o_proj", d, q);
      a.head_norm = true;
      a.q_norm = norm_site(weights, path + ".self_attn.q_norm", config.head_dim);
      a.k_norm = norm_site(weights, path + ".self_attn.k_norm", config.head_dim);
      a.site = {path + ".self_attn", l, config.heads, config.kv_heads, config.head_dim};
      a.scale = static_cast<T>(1 / std::sqrt(config.query_scalar));
      b.full = config.full_attention[static_cast<std::size_t>(l)];
      a.window = b.full ? 0 : config.window;
      b.mlp.gate_proj = linear(".mlp.gate_proj", config.intermediate_size, d);
      b.mlp.up_proj = linear(".mlp.up_proj", config.intermediate_size, d);
      b.mlp.down_proj = linear(".mlp.down_proj", d, config.intermediate_size);
      b.mlp.activation = config.activation;
      b.input_norm = norm_site(weights, path + ".input_layernorm", d);
      b.post_attention_norm = norm_site(weights, path + ".post_attention_layernorm", d);
      b.pre_mlp_norm = norm_site(weights, path + ".pre_feedforward_layernorm", d);
      b.post_mlp_norm = norm_site(weights, path + ".post_feedforward_layernorm", d);
      b.after_attention = {path + ".self_attn", d, HiddenRole::attention, "o_proj"};
      b.after_mlp = {path + ".mlp", d, HiddenRole::feed_forward, "down_proj"};
      b.after_block = {path, d, HiddenRole::block};
    }
    this->norm = norm_site(weights, "model.norm", d);
    this->make_head(config.classifier, config.tied_head, config.vocabulary, weights);
    list_sites();
  }

 private:
  struct Block {
    BasicNormSite<T> input_norm, post_attention_norm, pre_mlp_norm, post_mlp_norm;
    RotaryAttention<T> attention;
    GatedMlp<T> mlp;
    BasicHiddenSite<T> after_attention, after_mlp, after_block;
    bool full = true;

    BasicVar<T> operator()(const BasicVar<T>& x, const DecoderPass<T>& pass,
                           const BasicRope<T>& rope) const {
      const auto a = input_norm(x);
      const auto h = add(x, post_attention_norm(after_attention(a, attention(a, pass, rope), x)));
      const auto m = pre_mlp_norm(h);
      return after_block(x, add(h, post_mlp_norm(after_mlp(m, mlp(m), h))));
    }
  };

  BasicVar<T> blocks(BasicVar<T> x, const DecoderPass<T>& pass) const override {
    return this->norm(this->run_stack(
        x, blocks_, pass, [this](const Block& b, const BasicVar<T>& in, const DecoderPass<T>& of) {
          return b(in, of, b.full ? full_rope_ : sliding_rope_);
        }));
  }

  BasicNormSite<T> norm_site(const BasicWeights<T>& weights, const std::string& path,
                             Index width) const {
    BasicNorm<T> rms;
    rms.weight = weights.tensor(path + ".weight", {width});
    rms.weight_offset = static_cast<T>(config_.norm_offset);
    rms.eps = static_cast<T>(config_.rms_norm_eps);
    return {path, rms};
  }

  void list_sites() {
    auto& table = this->sites_;
    table.info = {"gemma3_text",    config_.hidden_size, config_.layers,     config_.heads,
                  config_.kv_heads, config_.head_dim,    config_.vocabulary, {this->head.path()}};
    table.info.activation = config_.activation;
    table.embedding.push_back(&this->embed_tokens);
    table.prompt = &this->prompt;
    table.pass = &this->pass_site;
    table.stack = &this->stack;
    for (const auto& b : blocks_) {
      auto& a = b->attention;
      for (auto* site : {&a.q_proj, &a.k_proj, &a.v_proj, &a.o_proj, &b->mlp.gate_proj,
                         &b->mlp.up_proj, &b->mlp.down_proj})
        table.linear.push_back(site);
      for (auto* site : {&a.q_norm, &a.k_norm, &b->input_norm, &b->post_attention_norm,
                         &b->pre_mlp_norm, &b->post_mlp_norm})
        table.norm.push_back(site);
      table.attention.push_back(&a.site);
      for (auto* site : {&b->after_attention, &b->after_mlp, &b->after_block})
        table.hidden.push_back(site);
    }
    table.norm.push_back(&this->norm);
    table.linear.push_back(&this->head);
  }

  Gemma3Config config_;
  BasicRope<T> full_rope_, sliding_rope_;
  std::vector<std::unique_ptr<Block>> blocks_;
};

using Gemma3 = BasicGemma3<float>;

}  // namespace graft::inline v0_1::models
