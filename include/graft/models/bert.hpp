#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "graft/layers/encoder_blocks.hpp"
#include "graft/layers/language_head.hpp"
#include "graft/models/classifier.hpp"
#include "graft/models/pooling.hpp"
#include "graft/models/weights.hpp"

namespace graft::inline v0_1::models {

/// Sizes and names of a BERT-like encoder.
struct BertConfig {
  std::string model_type = "bert";  ///< bert, roberta, distilbert
  Index vocabulary = 0;
  Index hidden_size = 0;
  Index intermediate_size = 0;
  Index layers = 0;
  Index heads = 0;
  Index max_positions = 0;
  Index token_types = 2;  ///< 0: none
  Index padding_id = 0;
  double norm_eps = 1e-12;
  kernels::Activation activation = kernels::Activation::gelu;
  Task task = Task::embedding;
  Index classes = 2;
  Problem problem = Problem::automatic;  ///< of sequence classification
  bool tied_head = true;  ///< masked language: the decoder runs on the rows of the word embedding
  bool pooler = true;     ///< no head: pooler.dense is a site if the file has it
};

/// Module paths of the head of a masked language model.
struct MaskedHeadPaths {
  std::string dense, norm, decoder;
  /// The module that has the decoder's bias where the decoder is tied; files may have it under
  /// either.
  std::string bias;
};
inline MaskedHeadPaths masked_head_paths(const std::string& model_type) {
  if (model_type == "roberta")
    return {"lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head"};
  if (model_type == "distilbert")
    return {"vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector"};
  return {"cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
          "cls.predictions.decoder", "cls.predictions"};
}

/// BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), DistilBERT (Sanh et al. 2019): embeddings
/// of word, position and type, then blocks h = norm(h + attention(h)); h = norm(h + mlp(h)).
///
/// Sites carry the module paths of Hugging Face transformers. Heads: sequence classification
/// (pooler or dense layer over the first token), token classification, the masked language model
/// decoder(norm(activation(dense(h)))) of every token h (activation: RoBERTa's is gelu, else that
/// of the blocks), or none (`embed` pools the hidden states). Without a head nothing runs on the
/// pooler of a file; it is a site, so that what adapters make of it is kept and merges.
template <std::floating_point T>
class BasicBert final : public BasicModel<T> {
 public:
  BasicBert(const BertConfig& config, const BasicWeights<T>& weights) : config_(config) {
    if (config.heads <= 0 || config.hidden_size % config.heads != 0)
      throw ValueError(
          concat("bert: ", config.heads, " heads for a width of ", config.hidden_size));
    const std::string root = config.task == Task::embedding ? "" : config.model_type + ".";
    const bool distil = config.model_type == "distilbert";
    const Index d = config.hidden_size;
    const std::string words = root + "embeddings.word_embeddings";
    const bool masked = config.task == Task::masked_language;
    const auto stored =
        masked && config.tied_head
            ? weights.stored_table(words, {masked_head_paths(config.model_type).decoder})
            : words;
    word_ = {words, weights.embedding(stored, config.vocabulary, d)};
    word_.padding_index = config.padding_id;
    position_ = {
        root + "embeddings.position_embeddings",
        weights.embedding(root + "embeddings.position_embeddings", config.max_positions, d)};
    if (config.model_type == "roberta") position_.padding_index = config.padding_id;
    if (config.token_types > 0)
      type_ = {root + "embeddings.token_type_embeddings",
               weights.embedding(root + "embeddings.token_type_embeddings", config.token_types, d)};
    embedding_norm_ = norm_site(weights, root + "embeddings.LayerNorm");
    prompt_ = {root + "embeddings.word_embeddings", d};
    const std::string list = root + (distil ? "transformer.layer." : "encoder.layer.");
    for (Index l = 0; l < config.layers; ++l) {
      blocks_.push_back(std::make_unique<Block>());
      Block& b = *blocks_.back();
      const std::string path = concat(list, l, ".");
      const auto linear = [&](const char* name, const char* distil_name, Index out, Index in) {
        const std::string full = path + (distil ? distil_name : name);
        return BasicLinearSite<T>(full, weights.linear(full, out, in));
      };
      b.attention.query = linear("attention.self.query", "attention.q_lin", d, d);
      b.attention.key = linear("attention.self.key", "attention.k_lin", d, d);
      b.attention.value = linear("attention.self.value", "attention.v_lin", d, d);
      b.attention.site = {path + (distil ? "attention" : "attention.self"), l, config.heads,
                          config.heads, d / config.heads};
      b.attention_output = linear("attention.output.dense", "attention.out_lin", d, d);
      b.attention_norm =
          norm_site(weights, path + (distil ? "sa_layer_norm" : "attention.output.LayerNorm"));
      b.mlp.up = linear("intermediate.dense", "ffn.lin1", config.intermediate_size, d);
      b.mlp.down = linear("output.dense", "ffn.lin2", d, config.intermediate_size);
      b.mlp.activation = config.activation;
      b.output_norm =
          norm_site(weights, path + (distil ? "output_layer_norm" : "output.LayerNorm"));
      b.after_attention = {path + (distil ? "attention" : "attention.output"), d,
                           HiddenRole::attention, distil ? "out_lin" : "dense", &b.attention_norm};
      b.after_mlp = {path + (distil ? "ffn" : "output"), d, HiddenRole::feed_forward,
                     distil ? "lin2" : "dense", &b.output_norm};
      b.after_block = {concat(list, l), d, HiddenRole::block};
    }
    const auto head = [&](const std::string& name, Index out) {
      return BasicLinearSite<T>(name, weights.linear(name, out, d));
    };
    if (config.task == Task::sequence_classification) {
      if (config.model_type == "bert") {
        pooler_ = head(root + "pooler.dense", d);
        classifier_ = head("classifier", config.classes);
      } else if (distil) {
        pooler_ = head("pre_classifier", d);
        classifier_ = head("classifier", config.classes);
      } else {
        pooler_ = head("classifier.dense", d);
        classifier_ = head("classifier.out_proj", config.classes);
      }
    } else if (config.task == Task::token_classification) {
      classifier_ = head("classifier", config.classes);
    } else if (config.task == Task::masked_language) {
      const auto paths = masked_head_paths(config.model_type);
      pooler_ = head(paths.dense, d);
      head_norm_ = norm_site(weights, paths.norm);
      classifier_ = {paths.decoder, decoder(weights, paths)};
      if (paths.bias != paths.decoder) classifier_.second_bias = paths.bias + ".bias";
    }
    if (config.task == Task::embedding && config.pooler && weights.has("pooler.dense.weight"))
      pooler_ = head("pooler.dense", d);
    list_sites();
  }

  const BertConfig& config() const { return config_; }

  /// Hidden states of the last block, [batch, tokens (virtual ones first), hidden].
  BasicVar<T> hidden(BasicTape<T>& tape, const BasicBatch<T>& batch) const {
    const auto count = static_cast<std::size_t>(batch.batch * batch.seq_len);
    if (batch.batch <= 0 || batch.ids.size() != count ||
        (!batch.mask.empty() && batch.mask.size() != count))
      throw ShapeError(concat("bert: ", batch.ids.size(), " ids for ", batch.batch, " x ",
                              batch.seq_len, " tokens"));
    const auto context = set_forward_context(tape, batch);
    const Index d = config_.hidden_size;
    auto x = reshape(word_(tape, batch.ids), {batch.batch, batch.seq_len, d});
    x = prompt_(x, *context);
    const auto fill = fill_of(
        prompt_.virtual_tokens(batch.row_adapters, batch.batch, static_cast<bool>(batch.visual)));
    const Index tokens = x.dim(1), extra = tokens - batch.seq_len;
    x = reshape(x, {batch.batch * tokens, d});
    if (type_.table()) {
      std::vector<std::int32_t> types(static_cast<std::size_t>(batch.batch * tokens), 0);
      if (!batch.token_types.empty())
        for (Index b = 0; b < batch.batch; ++b)
          std::copy_n(batch.token_types.begin() + b * batch.seq_len, batch.seq_len,
                      types.begin() + b * tokens + extra);
      x = add(x, type_(tape, types));
    }
    x = add(x, position_(tape, positions(batch, tokens, extra, fill, *context)));
    EncoderPass<T> pass;
    pass.batch = batch.batch;
    pass.key_mask = key_mask(batch, extra, fill);
    x = embedding_norm_(x);
    if (!stack_.adapters().empty()) stack_.begin(tape);
    x = stack_.finish(run_encoder(stack_, blocks_, x, pass));
    return reshape(x, {batch.batch, tokens, d});
  }

  BasicVar<T> logits(BasicTape<T>& tape, const BasicBatch<T>& batch) const override {
    const auto h = hidden(tape, batch);
    if (config_.task == Task::token_classification) return classifier_(h);
    if (predicts_tokens())
      return reshape(classifier_(before_decoder(h)), {h.dim(0), h.dim(1), config_.vocabulary});
    if (config_.task == Task::embedding) return h;
    auto first = first_tokens(h, batch);
    first = pooler_(first);
    return classifier_(config_.model_type == "distilbert" ? relu(first) : tanh(first));
  }
  BasicVar<T> loss(BasicTape<T>& tape, const BasicBatch<T>& batch) const override {
    return predicts_tokens() ? token_loss(tape, batch, nullptr, nullptr)
                             : loss_of(logits(tape, batch), batch);
  }
  BasicVar<T> loss_of(const BasicVar<T>& logits, const BasicBatch<T>& batch) const override {
    if (config_.task == Task::embedding)
      throw ValueError("bert: a model without a head has no loss");
    if (config_.task == Task::sequence_classification)
      return classification_loss(logits, batch, config_.problem);
    auto y = logits;
    if (y.dim(1) > batch.seq_len) y = slice(y, 1, y.dim(1) - batch.seq_len, batch.seq_len);
    return classification_loss(y, batch, Problem::single_label);
  }
  bool predicts_tokens() const override { return config_.task == Task::masked_language; }
  /// Each position predicts its own label.
  std::vector<std::int64_t> predicted_tokens(const BasicBatch<T>& batch,
                                             std::vector<T>&) const override {
    expect_masked_language("predicted tokens", batch);
    return this->labels_behind(prompt_, batch);
  }
  BasicVar<T> token_loss(BasicTape<T>& tape, const BasicBatch<T>& batch,
                         std::vector<unsigned char>* correct,
                         std::vector<T>* losses) const override {
    std::vector<T> weights;
    const auto labels = predicted_tokens(batch, weights);
    return linear_cross_entropy(before_decoder(hidden(tape, batch)), classifier_,
                                std::span<const std::int64_t>(labels), Index{128}, correct, losses);
  }
  BasicVar<T> token_logits(BasicTape<T>& tape, const BasicBatch<T>& batch) const override {
    const auto rows = this->predicting_positions(batch);
    return logits_of_rows(before_decoder(hidden(tape, batch)), classifier_, rows);
  }
  /// Sentence vectors: hidden states pooled over the real tokens. [batch, hidden]
  BasicTensor<T> embed(const BasicBatch<T>& batch, Pooling pooling = Pooling::mean,
                       bool normalize = true) const {
    BasicTape<T> tape({.gradients = false, .training = false});
    return pooled(hidden(tape, batch).value(), batch, pooling, normalize);
  }
  /// Tokens that a row may have.
  Index max_tokens() const {
    return config_.max_positions - (config_.model_type == "roberta" ? config_.padding_id + 1 : 0);
  }

 private:
  struct Block {
    MultiHeadAttention<T> attention;
    BasicLinearSite<T> attention_output;
    BasicNormSite<T> attention_norm, output_norm;
    Mlp<T> mlp;
    BasicHiddenSite<T> after_attention, after_mlp, after_block;

    BasicVar<T> attention_part(const BasicVar<T>& x, const EncoderPass<T>& pass) const {
      return after_attention.normalised_sum(x, attention_output(attention(x, pass)), x);
    }
    BasicVar<T> feed_forward_part(const BasicVar<T>& h, const BasicVar<T>& x) const {
      return after_block(x, after_mlp.normalised_sum(h, mlp(h), h));
    }
  };

  /// A model without a head as a stack of blocks beside another one; sites lose the first part of
  /// their paths.
  class Mirror final : public MirrorStack<T> {
   public:
    Mirror(const BertConfig& config, const BasicWeights<T>& weights) : model_(config, weights) {}
    BasicSiteTable<T>& sites() override { return model_.sites(); }
    BasicVar<T> embed(BasicTape<T>&, const std::vector<std::int32_t>&) const override {
      throw ValueError("bert: a stack of blocks beside the model has no embeddings of its own");
    }
    BasicVar<T> run(const BasicVar<T>& x, Index batch, const std::vector<unsigned char>& mask,
                    BasicKvCache<T>*) const override {
      EncoderPass<T> pass;
      pass.batch = batch;
      if (!mask.empty()) pass.key_mask = std::make_shared<std::vector<unsigned char>>(mask);
      return run_encoder(model_.stack_, model_.blocks_, x, pass);
    }
    bool ends_in_norm() const override { return false; }

   private:
    BasicBert model_;
  };

  std::unique_ptr<MirrorStack<T>> mirror(const MirrorSizes& sizes) const {
    auto config = config_;
    config.layers = sizes.layers;
    config.heads = sizes.heads.value_or(config.heads);
    config.hidden_size = reduced(sizes.hidden_size.value_or(config.hidden_size), sizes.reduction);
    config.intermediate_size =
        sizes.intermediate_size.value_or(config.intermediate_size) / sizes.reduction;
    config.task = Task::embedding;
    config.pooler = false;
    config.vocabulary = config.max_positions = config.token_types = 1;
    return std::make_unique<Mirror>(config, ZeroWeights<T>([](const auto&) { return true; }));
  }

  /// The layer from hidden states to the vocabulary. A file may have its bias under either name, or
  /// none, which is zeros; of two, transformers runs on the layer's own.
  BasicAnyLinear<T> decoder(const BasicWeights<T>& weights, const MaskedHeadPaths& paths) const {
    const Index d = config_.hidden_size, n = config_.vocabulary;
    auto bias = BasicTensor<T>::zeros({n});
    for (const auto* module : {&paths.decoder, &paths.bias}) {
      if (!weights.has(*module + ".bias")) continue;
      bias = weights.tensor(*module + ".bias", {n});
      break;
    }
    const bool tied = weights.ties(config_.tied_head, paths.decoder, word_.path());
    return tied_head(tied ? word_.table() : weights.embedding(paths.decoder, n, d), bias);
  }
  /// What the decoder of a masked language model sees: [batch · tokens, hidden].
  BasicVar<T> before_decoder(const BasicVar<T>& hidden) const {
    const auto kind =
        config_.model_type == "roberta" ? kernels::Activation::gelu : config_.activation;
    const auto h = reshape(hidden, {hidden.rows(), hidden.cols()});
    return head_norm_(activation(kind, pooler_(h)));
  }
  /// @throws ValueError, ShapeError unless tokens have labels that the model can learn
  void expect_masked_language(const char* operation, const BasicBatch<T>& batch) const {
    if (!predicts_tokens())
      throw ValueError(concat(operation, ": the model is no masked language model"));
    if (std::ssize(batch.labels) != batch.batch * batch.seq_len)
      throw ShapeError(concat("masked loss: ", batch.labels.size(), " labels for ", batch.batch,
                              " x ", batch.seq_len, " tokens"));
  }

  BasicNormSite<T> norm_site(const BasicWeights<T>& weights, const std::string& path) const {
    BasicNorm<T> norm;
    norm.rms = false;
    norm.weight = weights.tensor(path + ".weight", {config_.hidden_size});
    norm.bias = weights.tensor(path + ".bias", {config_.hidden_size});
    norm.eps = static_cast<T>(config_.norm_eps);
    return {path, norm};
  }

  /// The first token of each row, which may be a virtual one: [batch, hidden].
  BasicVar<T> first_tokens(const BasicVar<T>& h, const BasicBatch<T>& batch) const {
    const auto fill = fill_of(
        prompt_.virtual_tokens(batch.row_adapters, batch.batch, static_cast<bool>(batch.visual)));
    if (fill.empty()) return reshape(slice(h, 1, 0, 1), {batch.batch, config_.hidden_size});
    std::vector<Index> rows;
    for (Index b = 0; b < batch.batch; ++b)
      rows.push_back(b * h.dim(1) + fill[static_cast<std::size_t>(b)]);
    return gather_rows(reshape(h, {h.rows(), h.cols()}), rows);
  }

  /// RoBERTa counts real tokens from padding_id + 1, and all tokens where some are virtual; the
  /// others count all tokens from 0, keys of a prefix included.
  std::vector<std::int32_t> positions(const BasicBatch<T>& batch, Index tokens, Index extra,
                                      const std::vector<Index>& fill,
                                      const ForwardContext& context) const {
    std::vector<std::int32_t> result(static_cast<std::size_t>(batch.batch * tokens));
    std::vector<Index> starts(static_cast<std::size_t>(batch.batch), 0);
    if (!blocks_.empty())
      starts = blocks_.front()->attention.site.virtual_keys(&context, batch.batch);
    for (Index b = 0; b < batch.batch; ++b) {
      const Index first = starts[static_cast<std::size_t>(b)];
      const Index filled = fill.empty() ? 0 : fill[static_cast<std::size_t>(b)];
      Index next = config_.padding_id + 1;
      for (Index t = 0; t < tokens; ++t) {
        Index position = std::max<Index>(0, t - filled) + first;
        if (config_.model_type == "roberta" && extra > filled) {
          position += config_.padding_id + 1;  // transformers sees no ids beside virtual tokens
        } else if (config_.model_type == "roberta") {
          const bool padding =
              t < filled ||
              (t >= extra && batch.ids[static_cast<std::size_t>(b * batch.seq_len + t - extra)] ==
                                 config_.padding_id);
          position = padding ? config_.padding_id : first + next++;
        }
        if (position >= config_.max_positions)
          throw ValueError(concat(config_.model_type, ": a row of ", tokens,
                                  " tokens, the model has ", config_.max_positions, " positions"));
        result[static_cast<std::size_t>(b * tokens + t)] = static_cast<std::int32_t>(position);
      }
    }
    return result;
  }

  void list_sites() {
    auto& table = this->sites_;
    table.info.architecture = config_.model_type;
    table.info.hidden_size = config_.hidden_size;
    table.info.layers = config_.layers;
    table.info.heads = table.info.kv_heads = config_.heads;
    table.info.head_dim = config_.hidden_size / config_.heads;
    table.info.vocabulary = config_.vocabulary;
    table.info.activation = config_.activation;
    table.info.output_layers = {"classifier", "classifier.out_proj"};
    if (predicts_tokens()) table.info.output_layers = {classifier_.path()};
    table.embedding = {&word_, &position_};
    if (type_.table()) table.embedding.push_back(&type_);
    table.norm.push_back(&embedding_norm_);
    table.prompt = &prompt_;
    table.stack = &stack_;
    table.mirror = [this](const MirrorSizes& sizes) { return mirror(sizes); };
    for (const auto& b : blocks_) {
      for (auto* site : {&b->attention.query, &b->attention.key, &b->attention.value,
                         &b->attention_output, &b->mlp.up, &b->mlp.down})
        table.linear.push_back(site);
      table.norm.push_back(&b->attention_norm);
      table.norm.push_back(&b->output_norm);
      table.attention.push_back(&b->attention.site);
      for (auto* site : {&b->after_attention, &b->after_mlp, &b->after_block})
        table.hidden.push_back(site);
    }
    if (pooler_.base()) table.linear.push_back(&pooler_);
    if (predicts_tokens()) table.norm.push_back(&head_norm_);
    if (classifier_.base()) table.linear.push_back(&classifier_);
  }

  BertConfig config_;
  BasicEmbeddingSite<T> word_, position_, type_;
  BasicPromptSite<T> prompt_;
  BasicStackSite<T> stack_;
  BasicNormSite<T> embedding_norm_;
  std::vector<std::unique_ptr<Block>> blocks_;
  /// The last two layers: of a masked language model the dense layer and the decoder. Without a
  /// head the first alone, which does not run.
  BasicLinearSite<T> pooler_, classifier_;
  BasicNormSite<T> head_norm_;  ///< of a masked language model
};

using Bert = BasicBert<float>;

}  // namespace graft::inline v0_1::models
