#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "graft/models/causal_model.hpp"
#include "graft/models/weights.hpp"

namespace graft::inline v0_1::models {

struct Gpt2Config {
  Index vocabulary = 0;
  Index hidden_size = 0;
  Index intermediate_size = 0;
  Index layers = 0;
  Index heads = 0;
  Index max_positions = 0;
  double norm_eps = 1e-5;
  bool scale_scores = true;     ///< by 1 / √head_dim
  bool scale_by_layer = false;  ///< and by 1 / (layer + 1)
  bool tied_head = true;
  kernels::Activation activation = kernels::Activation::gelu_tanh;
  ClassifierHead classifier = {};
};

/// h = h + attention(norm(h)); h = h + mlp(norm(h)) with learned positions and one layer for
/// queries, keys and values (Radford et al. 2019). Sites: transformer.{wte, wpe, h.N.{ln_1,
/// attn.c_attn, attn.c_proj, ln_2, mlp.c_fc, mlp.c_proj}, ln_f}, lm_head. Files hold the weights of
/// the blocks as [in, out].
template <std::floating_point T>
class BasicGpt2 final : public BasicCausalModel<T> {
 public:
  BasicGpt2(const Gpt2Config& config, const BasicWeights<T>& weights) : config_(config) {
    if (config.heads <= 0 || config.hidden_size % config.heads != 0)
      throw ValueError(
          concat("gpt2: ", config.heads, " heads for a width of ", config.hidden_size));
    const Index d = config.hidden_size;
    this->max_positions = config.max_positions;
    this->make_embedding("transformer.wte", config.vocabulary, d, config.tied_head, weights);
    positions_ = {"transformer.wpe", weights.embedding("transformer.wpe", config.max_positions, d)};
    for (Index l = 0; l < config.layers; ++l) {
      blocks_.push_back(std::make_unique<Block>());
      Block& b = *blocks_.back();
      const std::string path = concat("transformer.h.", l);
      const auto linear = [&](const char* name, Index out, Index in) {
        BasicLinearSite<T> site(path + name, weights.linear_in_out(path + name, out, in));
        site.fan_in_fan_out = true;
        return site;
      };
      b.ln_1 = norm_site(weights, path + ".ln_1");
      b.ln_2 = norm_site(weights, path + ".ln_2");
      b.c_attn = linear(".attn.c_attn", 3 * d, d);
      b.c_proj = linear(".attn.c_proj", d, d);
      b.c_fc = linear(".mlp.c_fc", config.intermediate_size, d);
      b.mlp_proj = linear(".mlp.c_proj", d, config.intermediate_size);
      b.activation = config.activation;
      b.attention = {path + ".attn", l, config.heads, config.heads, d / config.heads};
      double scale = 1;
      if (config.scale_scores) scale /= std::sqrt(static_cast<double>(d / config.heads));
      if (config.scale_by_layer) scale /= static_cast<double>(l + 1);
      b.scale = static_cast<T>(scale);
      b.after_attention = {path + ".attn", d, HiddenRole::attention, "c_proj"};
      b.after_mlp = {path + ".mlp", d, HiddenRole::feed_forward, "c_proj"};
      b.after_block = {path, d, HiddenRole::block};
    }
    this->norm = norm_site(weights, "transformer.ln_f");
    this->make_head(config.classifier, config.tied_head, config.vocabulary, weights);
    list_sites();
  }

 private:
  struct Block {
    BasicNormSite<T> ln_1, ln_2;
    BasicLinearSite<T> c_attn, c_proj, c_fc, mlp_proj;
    BasicAttentionSite<T> attention;
    BasicHiddenSite<T> after_attention, after_mlp, after_block;
    kernels::Activation activation = kernels::Activation::gelu_tanh;
    T scale = 1;  ///< of the scores

    BasicVar<T> operator()(const BasicVar<T>& x, const DecoderPass<T>& pass) const {
      const auto a = ln_1(x);
      const auto qkv = c_attn(a);
      const Index d = x.cols();
      AttentionCall<T> call;
      call.input = a;
      call.q = slice(qkv, -1, 0, d);
      call.k = slice(qkv, -1, d, d);
      call.v = slice(qkv, -1, 2 * d, d);
      if (pass.cache != nullptr)
        std::tie(call.k, call.v) = pass.cache->extend(attention.layer, call.k, call.v);
      call.options.batch = pass.batch;
      call.options.heads = call.options.kv_heads = attention.heads;
      call.options.scale = scale;
      call.options.key_mask = pass.key_mask;
      call.fused = &c_attn;
      call.output = &c_proj;
      const auto h = add(x, after_attention(a, attention(std::move(call)), x));
      const auto m = ln_2(h);
      const auto f = graft::activation(activation, c_fc(m));
      const bool ends_block = after_mlp.is_plain() && after_block.is_plain();
      return after_block(x, add(h, after_mlp(m, ends_block ? mlp_proj.last(f) : mlp_proj(f), h)));
    }
  };

  BasicVar<T> blocks(BasicVar<T> x, const DecoderPass<T>& pass) const override {
    const auto* context = x.tape().template context<ForwardContext>();
    const auto first = blocks_.empty() ? std::vector<Index>(static_cast<std::size_t>(pass.batch), 0)
                                       : pass.first_positions(blocks_.front()->attention, context);
    std::vector<std::int32_t> position;
    for (const Index begin : first) {
      if (begin + pass.tokens > config_.max_positions)
        throw ValueError(concat("gpt2: a row of ", begin + pass.tokens, " tokens, the model has ",
                                config_.max_positions, " positions"));
      for (Index t = 0; t < pass.tokens; ++t)
        position.push_back(static_cast<std::int32_t>(std::max<Index>(0, begin + t)));
    }
    x = add(x, positions_(x.tape(), position));
    return this->norm(this->run_stack(
        x, blocks_, pass,
        [](const Block& b, const BasicVar<T>& in, const DecoderPass<T>& of) { return b(in, of); }));
  }

  BasicNormSite<T> norm_site(const BasicWeights<T>& weights, const std::string& path) const {
    BasicNorm<T> layer;
    layer.rms = false;
    layer.weight = weights.tensor(path + ".weight", {config_.hidden_size});
    layer.bias = weights.tensor(path + ".bias", {config_.hidden_size});
    layer.eps = static_cast<T>(config_.norm_eps);
    return {path, layer};
  }

  void list_sites() {
    auto& table = this->sites_;
    table.info = {"gpt2",
                  config_.hidden_size,
                  config_.layers,
                  config_.heads,
                  config_.heads,
                  config_.hidden_size / config_.heads,
                  config_.vocabulary,
                  {this->head.path()}};
    table.info.activation = config_.activation;
    table.embedding = {&this->embed_tokens, &positions_};
    table.prompt = &this->prompt;
    table.pass = &this->pass_site;
    table.stack = &this->stack;
    for (const auto& b : blocks_) {
      for (auto* site : {&b->c_attn, &b->c_proj, &b->c_fc, &b->mlp_proj})
        table.linear.push_back(site);
      table.norm.push_back(&b->ln_1);
      table.norm.push_back(&b->ln_2);
      table.attention.push_back(&b->attention);
      for (auto* site : {&b->after_attention, &b->after_mlp, &b->after_block})
        table.hidden.push_back(site);
    }
    table.norm.push_back(&this->norm);
    table.linear.push_back(&this->head);
  }

  Gpt2Config config_;
  BasicEmbeddingSite<T> positions_;
  std::vector<std::unique_ptr<Block>> blocks_;
};

using Gpt2 = BasicGpt2<float>;

}  // namespace graft::inline v0_1::models
