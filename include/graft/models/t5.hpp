#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "graft/layers/encoder_blocks.hpp"
#include "graft/layers/language_head.hpp"
#include "graft/models/classifier.hpp"
#include "graft/models/model.hpp"
#include "graft/models/weights.hpp"

namespace graft::inline v0_1::models {

struct T5Config {
  Index vocabulary = 0;
  Index hidden_size = 0;
  Index head_dim = 0;
  Index intermediate_size = 0;
  Index encoder_layers = 0;
  Index decoder_layers = 0;
  Index heads = 0;
  Index buckets = 32;
  Index max_distance = 128;
  std::int32_t start_token = 0;
  std::int32_t padding_id = 0;
  std::int32_t end_token = 1;  ///< where a classifier of texts reads
  double norm_eps = 1e-6;
  bool gated = false;
  bool scale_output = false;  ///< hidden states times 1 / √hidden_size before the head of a
                              ///< language model
  kernels::Activation activation = kernels::Activation::relu;
  Task task = Task::sequence_classification;  ///< of a classifier
  Index classes = 0;                          ///< of a classifier; 0: a language model
  Problem problem = Problem::automatic;       ///< of sequence classification
};

/// T5 (Raffel et al. 2020): encoder and decoder of blocks h = h + sublayer(norm(h)) with RMS norms,
/// attention without scaling and with a bias by bucketed distance that the first block of each
/// stack owns.
///
/// The decoder reads the labels shifted right, -100 as padding; its loss is not shifted. The stacks
/// look tokens up through embeddings of their own over the shared table, so an adapter that changes
/// one layer has no effect at `shared`: it belongs to {encoder,decoder}.embed_tokens. Trained
/// tokens and the whole table reach both from there. Deviation: in PEFT a whole table of
/// `modules_to_save` at `shared` is never called. Sites:
/// {encoder,decoder}.block.N.layer.M.{SelfAttention,EncDecAttention}.{q,k,v,o}, .layer_norm,
/// .DenseReluDense.{wi,wi_0,wi_1,wo}, {encoder,decoder}.embed_tokens, shared, lm_head; and
/// {encoder,decoder}.block.0.layer.0.SelfAttention.relative_attention_bias, an embedding of buckets
/// of distances, whose biases are one for all rows of a batch.
///
/// With classes it is a classifier, whose sites begin with "transformer.":
///   of texts   out_proj(tanh(dense(h))), h what the decoder, which reads the tokens shifted right,
///              makes of the last real `end_token` of a row; sites classification_head.{dense,
///              out_proj}. Deviation: rows may differ in the number of such tokens.
///   of tokens  the encoder and a linear layer, site classifier; there is no decoder.
template <std::floating_point T>
class BasicT5 final : public BasicModel<T> {
 public:
  BasicT5(const T5Config& config, const BasicWeights<T>& weights) : config_(config) {
    if (config.heads <= 0 || config.head_dim <= 0)
      throw ValueError(concat("t5: ", config.heads, " heads"));
    if (config.classes > 0 && config.task != Task::sequence_classification &&
        config.task != Task::token_classification)
      throw ValueError("t5: a classifier of texts or tokens has a head");
    const Index d = config.hidden_size;
    const std::string root = config.classes > 0 ? "transformer." : "";
    const std::string table = weights.stored_table(
        root + "shared", {root + "encoder.embed_tokens", root + "decoder.embed_tokens", "lm_head"});
    for (const char* stack : {"encoder.embed_tokens", "decoder.embed_tokens"})
      if (weights.differ(root + stack + ".weight", table + ".weight"))
        throw ValueError(concat("t5: ", root, stack, ".weight differs from ", table,
                                ".weight; stacks with tables of their own are not supported"));
    shared_ = {root + "shared", weights.embedding(table, config.vocabulary, d)};
    encoder_tokens_ = {root + "encoder.embed_tokens", shared_.table()};
    prompt_ = {root + "shared", d};
    build(encoder_, root + "encoder", config.encoder_layers, false, weights);
    if (!tags()) {
      decoder_tokens_ = {root + "decoder.embed_tokens", shared_.table()};
      build(decoder_, root + "decoder", config.decoder_layers, true, weights);
    }
    const auto linear = [&](const char* name, Index out) {
      return BasicLinearSite<T>(name, weights.linear(name, out, d));
    };
    if (tags()) {
      head_ = linear("classifier", config.classes);
    } else if (config.classes > 0) {
      dense_ = linear("classification_head.dense", d);
      head_ = linear("classification_head.out_proj", config.classes);
    } else if (weights.ties(true, "lm_head", table)) {
      head_ = {"lm_head", tied_head(shared_.table())};
    } else {
      head_ = linear("lm_head", config.vocabulary);
    }
    list_sites();
  }

  const T5Config& config() const { return config_; }

  /// Logits of the decoder, [batch, label tokens (virtual ones first), vocabulary]; of a classifier
  /// of texts [batch, classes], of tokens [batch, tokens (virtual ones first), classes].
  BasicVar<T> logits(BasicTape<T>& tape, const BasicBatch<T>& batch) const override {
    if (tags()) {
      const auto y = head_(encode(tape, batch).states);
      return reshape(y, {batch.batch, y.rows() / batch.batch, y.cols()});
    }
    const auto h = decode(tape, batch);
    if (dense_.base())
      return head_(tanh(dense_(gather_rows(h, end_rows(batch, h.rows() / batch.batch)))));
    const auto y = head_(h);
    return reshape(y, {batch.batch, y.rows() / batch.batch, y.cols()});
  }
  BasicVar<T> loss(BasicTape<T>& tape, const BasicBatch<T>& batch) const override {
    if (config_.classes > 0) return loss_of(logits(tape, batch), batch);
    const auto h = decode(tape, batch);
    return linear_cross_entropy(h, head_, std::span<const std::int64_t>(labels_of(h, batch)));
  }
  BasicVar<T> loss_of(const BasicVar<T>& logits, const BasicBatch<T>& batch) const override {
    if (dense_.base()) return classification_loss(logits, batch, config_.problem);
    if (tags()) {
      const Index extra = logits.dim(1) - batch.seq_len;
      return classification_loss(extra > 0 ? slice(logits, 1, extra, batch.seq_len) : logits, batch,
                                 Problem::single_label);
    }
    return cross_entropy(reshape(logits, {logits.rows(), logits.cols()}),
                         std::span<const std::int64_t>(labels_of(logits, batch)));
  }

 private:
  /// True for a classifier of tokens.
  bool tags() const { return config_.classes > 0 && config_.task == Task::token_classification; }
  /// The labels of all positions of the decoder, virtual ones first.
  static std::vector<std::int64_t> labels_of(const BasicVar<T>& h, const BasicBatch<T>& batch) {
    const Index tokens = h.rows() / batch.batch,
                length = static_cast<Index>(batch.labels.size()) / batch.batch;
    std::vector<std::int64_t> labels(static_cast<std::size_t>(h.rows()), kIgnoredLabel);
    for (Index b = 0; b < batch.batch; ++b)
      std::copy_n(batch.labels.begin() + b * length, length,
                  labels.begin() + (b + 1) * tokens - length);
    return labels;
  }

  struct Attention {
    MultiHeadAttention<T> heads;
    BasicLinearSite<T> output;
    BasicNormSite<T> norm;
    BasicHiddenSite<T> after;
  };
  struct Block {
    Attention self, cross;
    BasicNormSite<T> mlp_norm;
    BasicLinearSite<T> wi, wi_1, wo;
    BasicHiddenSite<T> after_mlp, after_block;
  };
  struct Stack {
    std::vector<std::unique_ptr<Block>> blocks;
    BasicEmbeddingSite<T> distance_bias;  // [buckets, heads]
    BasicNormSite<T> norm;
    bool decoder = false;
  };

  void build(Stack& stack, const std::string& root, Index layers, bool decoder,
             const BasicWeights<T>& weights) {
    const Index d = config_.hidden_size, inner = config_.heads * config_.head_dim,
                ff = config_.intermediate_size;
    stack.decoder = decoder;
    for (Index l = 0; l < layers; ++l) {
      stack.blocks.push_back(std::make_unique<Block>());
      Block& b = *stack.blocks.back();
      const std::string block = concat(root, ".block.", l, ".layer.");
      const auto linear = [&](const std::string& path, Index out, Index in) {
        return BasicLinearSite<T>(path, weights.linear(path, out, in));
      };
      const auto attention = [&](Attention& a, const std::string& layer, const std::string& name,
                                 AttentionRole role) {
        const std::string path = layer + "." + name;
        a.heads.query = linear(path + ".q", inner, d);
        a.heads.key = linear(path + ".k", inner, d);
        a.heads.value = linear(path + ".v", inner, d);
        a.output = linear(path + ".o", d, inner);
        a.heads.site = {path, l, config_.heads, config_.heads, config_.head_dim, role};
        a.norm = norm_site(weights, layer + ".layer_norm");
        const bool cross = role == AttentionRole::cross;
        a.after = {layer, d, cross ? HiddenRole::cross_attention : HiddenRole::attention,
                   name + ".o"};
      };
      attention(b.self, block + "0", "SelfAttention",
                decoder ? AttentionRole::self : AttentionRole::encoder);
      if (decoder) attention(b.cross, block + "1", "EncDecAttention", AttentionRole::cross);
      const std::string mlp = block + (decoder ? "2" : "1");
      b.mlp_norm = norm_site(weights, mlp + ".layer_norm");
      b.wi = linear(mlp + ".DenseReluDense." + (config_.gated ? "wi_0" : "wi"), ff, d);
      if (config_.gated) b.wi_1 = linear(mlp + ".DenseReluDense.wi_1", ff, d);
      b.wo = linear(mlp + ".DenseReluDense.wo", d, ff);
      b.after_mlp = {mlp, d, HiddenRole::feed_forward, "DenseReluDense.wo"};
      b.after_block = {concat(root, ".block.", l), d, HiddenRole::block};
    }
    const std::string path = root + ".block.0.layer.0.SelfAttention.relative_attention_bias";
    stack.distance_bias = {path, weights.embedding(path, config_.buckets, config_.heads)};
    stack.norm = norm_site(weights, root + ".final_layer_norm");
  }

  BasicVar<T> run(const Stack& stack, BasicVar<T> x, Index batch, const EncoderPass<T>& own,
                  const BasicVar<T>& memory = {}, const EncoderPass<T>& other = {}) const {
    const Index tokens = x.rows() / batch;
    const auto table = distance_bias(stack, x.tape());
    BasicVar<T> bias;
    for (const auto& block : stack.blocks) {
      const Block& b = *block;
      const auto before = x;
      AttentionOptions<T> options;
      options.causal = stack.decoder;
      const Index keys = tokens + same_virtual_keys(b, x.tape(), batch);
      if (!bias || bias.dim(2) != keys) bias = position_bias(stack, table, tokens, keys);
      options.bias = bias;
      x = sublayer(b.self, x, BasicVar<T>{}, own, std::move(options));
      if (stack.decoder) {
        AttentionOptions<T> cross;
        cross.causal = false;
        x = sublayer(b.cross, x, memory, other, std::move(cross));
      }
      const auto m = b.mlp_norm(x);
      const auto h = config_.gated ? gated(config_.activation, b.wi(m), b.wi_1(m))
                                   : activation(config_.activation, b.wi(m));
      x = b.after_block(before, add(x, b.after_mlp(m, b.wo(h), x)));
    }
    return stack.norm(x);
  }
  static BasicVar<T> sublayer(const Attention& a, const BasicVar<T>& x, const BasicVar<T>& memory,
                              const EncoderPass<T>& pass, AttentionOptions<T> options) {
    const auto n = a.norm(x);
    return add(x,
               a.after(n, a.output(a.heads(n, memory ? memory : n, pass, std::move(options))), x));
  }

  /// The biases of distances are one for all rows of a batch.
  [[noreturn]] static void refuse_rows(const std::string& that_differ) {
    throw ValueError(concat("t5: rows of a batch with ", that_differ,
                            "; the biases of distances are one for all rows: give them batches of "
                            "their own"));
  }
  /// Keys before those of the text. @throws ValueError if rows of the batch differ in them
  static Index same_virtual_keys(const Block& b, const BasicTape<T>& tape, Index batch) {
    const auto keys =
        b.self.heads.site.virtual_keys(tape.template context<ForwardContext>(), batch);
    if (std::any_of(keys.begin(), keys.end(), [&](Index k) { return k != keys.front(); }))
      refuse_rows("prefixes of different lengths");
    return keys.front();
  }
  /// Biases of the buckets of distances, [buckets, heads].
  /// @throws ValueError if rows of the batch run different adapters of them
  BasicVar<T> distance_bias(const Stack& stack, BasicTape<T>& tape) const {
    const auto& site = stack.distance_bias;
    std::vector<std::int32_t> buckets(static_cast<std::size_t>(config_.buckets));
    std::iota(buckets.begin(), buckets.end(), 0);
    const auto* context = tape.template context<ForwardContext>();
    if (context == nullptr || context->row_adapters.empty()) return site(tape, buckets);
    const auto& names = context->row_adapters;
    const auto chain = site.chain_of(names.front());
    for (const auto& name : names)
      if (site.chain_of(name) != chain)
        refuse_rows(
            concat("'", names.front(), "' and '", name, "', which differ at ", site.path()));
    return BasicEmbeddingView<T>(site.table(), chain)(tape, buckets);
  }
  /// Bias of each head for the distance between query and key, [heads, tokens, keys], of a table
  /// [buckets, heads]; the last query is at the last key.
  BasicVar<T> position_bias(const Stack& stack, const BasicVar<T>& table, Index tokens,
                            Index keys) const {
    std::vector<std::int32_t> buckets;
    for (Index q = keys - tokens; q < keys; ++q)
      for (Index k = 0; k < keys; ++k)
        buckets.push_back(static_cast<std::int32_t>(bucket_of(k - q, !stack.decoder)));
    return reshape(transpose(gather_rows(table, std::move(buckets))),
                   {config_.heads, tokens, keys});
  }
  Index bucket_of(Index distance, bool both_sides) const {
    Index buckets = config_.buckets, bucket = 0;
    if (both_sides) {
      buckets /= 2;
      if (distance > 0) bucket += buckets;
      distance = std::abs(distance);
    } else {
      distance = std::max<Index>(0, -distance);
    }
    const Index exact = buckets / 2;
    if (distance < exact) return bucket + distance;
    const float far = std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(config_.max_distance) /
                                                  static_cast<double>(exact))) *
                      static_cast<float>(buckets - exact);
    return bucket + std::min(buckets - 1, exact + static_cast<Index>(far));
  }

  /// What the encoder makes of a batch, [batch · tokens (virtual ones first), hidden].
  struct Encoded {
    BasicVar<T> states;
    EncoderPass<T> pass;
    std::shared_ptr<const ForwardContext> context;
  };
  Encoded encode(BasicTape<T>& tape, const BasicBatch<T>& batch) const {
    const auto count = static_cast<std::size_t>(batch.batch * batch.seq_len);
    if (batch.batch <= 0 || batch.ids.size() != count ||
        (!batch.mask.empty() && batch.mask.size() != count))
      throw ShapeError(concat("t5: ", batch.ids.size(), " ids and a mask of ", batch.mask.size(),
                              " for ", batch.batch, " x ", batch.seq_len, " tokens"));
    Encoded result;
    result.context = set_forward_context(tape, batch);
    const Index d = config_.hidden_size;
    const auto x =
        prompt_(reshape(encoder_tokens_(tape, batch.ids), {batch.batch, batch.seq_len, d}),
                *result.context);
    const Index tokens = x.dim(1), extra = tokens - batch.seq_len;
    result.pass.batch = batch.batch;
    result.pass.key_mask =
        key_mask(batch, extra,
                 fill_of(prompt_.virtual_tokens(batch.row_adapters, batch.batch,
                                                static_cast<bool>(batch.visual))));
    result.states = run(encoder_, reshape(x, {batch.batch * tokens, d}), batch.batch, result.pass);
    return result;
  }
  /// What the decoder makes of the labels, or of the tokens that a classifier reads again.
  BasicVar<T> decode(BasicTape<T>& tape, const BasicBatch<T>& batch) const {
    const bool classifies = config_.classes > 0;
    if (!classifies && (batch.labels.empty() || batch.batch <= 0 ||
                        batch.labels.size() % static_cast<std::size_t>(batch.batch) != 0))
      throw ShapeError(concat("t5: ", batch.labels.size(), " labels for ", batch.batch, " rows"));
    const auto encoded = encode(tape, batch);
    const auto ids =
        classifies ? shifted(batch.ids, batch.batch) : shifted(batch.labels, batch.batch);
    const Index d = config_.hidden_size, length = std::ssize(ids) / batch.batch;
    EncoderPass<T> own;
    own.batch = batch.batch;
    auto start = prompt_.before_decoder(
        reshape(decoder_tokens_(tape, ids), {batch.batch, length, d}), *encoded.context);
    start = reshape(start, {batch.batch * start.dim(1), d});
    auto y = run(decoder_, std::move(start), batch.batch, own, encoded.states, encoded.pass);
    if (config_.scale_output && !classifies)
      y = scale(y, static_cast<T>(1 / std::sqrt(static_cast<double>(d))));
    return y;
  }
  /// Rows of tokens moved by one, the start token in front, -100 as padding.
  template <class Ids>
  std::vector<std::int32_t> shifted(const Ids& tokens, Index batch) const {
    const Index length = std::ssize(tokens) / batch;
    std::vector<std::int32_t> ids(tokens.size());
    for (Index i = 0; i < std::ssize(tokens); ++i) {
      const auto at = static_cast<std::size_t>(i);
      ids[at] = i % length == 0                   ? config_.start_token
                : tokens[at - 1] == kIgnoredLabel ? config_.padding_id
                                                  : static_cast<std::int32_t>(tokens[at - 1]);
    }
    return ids;
  }
  /// Where the last real `end_token` of each row of the batch is among the states of the decoder.
  std::vector<Index> end_rows(const BasicBatch<T>& batch, Index tokens) const {
    std::vector<Index> rows;
    for (Index b = 0; b < batch.batch; ++b) {
      Index last = batch.seq_len - 1;
      for (; last >= 0; --last) {
        const auto at = static_cast<std::size_t>(b * batch.seq_len + last);
        if (batch.ids[at] == config_.end_token && (batch.mask.empty() || batch.mask[at] != 0))
          break;
      }
      if (last < 0)
        throw ValueError(concat("t5: row ", b, " has no token ", config_.end_token,
                                ", the end of a text, which the classifier reads"));
      rows.push_back((b + 1) * tokens - batch.seq_len + last);
    }
    return rows;
  }

  BasicNormSite<T> norm_site(const BasicWeights<T>& weights, const std::string& path) const {
    BasicNorm<T> rms;
    rms.weight = weights.tensor(path + ".weight", {config_.hidden_size});
    rms.eps = static_cast<T>(config_.norm_eps);
    return {path, rms};
  }

  void list_sites() {
    auto& table = this->sites_;
    table.info = {"t5",          config_.hidden_size, config_.encoder_layers, config_.heads,
                  config_.heads, config_.head_dim,    config_.vocabulary,     {head_.path()}};
    table.info.encoder_decoder = !tags();
    table.info.activation = config_.activation;
    table.embedding = {&shared_, &encoder_tokens_};
    if (!tags()) table.embedding.push_back(&decoder_tokens_);
    table.embedding.push_back(&encoder_.distance_bias);
    if (!tags()) table.embedding.push_back(&decoder_.distance_bias);
    table.prompt = &prompt_;
    for (auto* stack : {&encoder_, &decoder_}) {
      if (stack == &decoder_ && tags()) continue;
      for (const auto& b : stack->blocks) {
        for (auto* a : {&b->self, &b->cross}) {
          if (!a->output.base()) continue;
          for (auto* site : {&a->heads.query, &a->heads.key, &a->heads.value, &a->output})
            table.linear.push_back(site);
          table.norm.push_back(&a->norm);
          table.attention.push_back(&a->heads.site);
          table.hidden.push_back(&a->after);
        }
        table.linear.push_back(&b->wi);
        if (b->wi_1.base()) table.linear.push_back(&b->wi_1);
        table.linear.push_back(&b->wo);
        table.norm.push_back(&b->mlp_norm);
        table.hidden.push_back(&b->after_mlp);
        table.hidden.push_back(&b->after_block);
      }
      table.norm.push_back(&stack->norm);
    }
    if (dense_.base()) table.linear.push_back(&dense_);
    table.linear.push_back(&head_);
  }

  T5Config config_;
  BasicEmbeddingSite<T> shared_, encoder_tokens_, decoder_tokens_;
  BasicPromptSite<T> prompt_;
  Stack encoder_, decoder_;
  BasicLinearSite<T> dense_, head_;
};

using T5 = BasicT5<float>;

}  // namespace graft::inline v0_1::models
