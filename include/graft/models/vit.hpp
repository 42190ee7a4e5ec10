#pragma once

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/layers/encoder_blocks.hpp"
#include "graft/models/classifier.hpp"
#include "graft/models/weights.hpp"

namespace graft::inline v0_1::models {

struct VitConfig {
  Index image_size = 224;
  Index patch_size = 16;
  Index channels = 3;
  Index hidden_size = 0;
  Index intermediate_size = 0;
  Index layers = 0;
  Index heads = 0;
  Index classes = 0;  ///< 0: no classifier
  Problem problem = Problem::automatic;
  double norm_eps = 1e-12;
  kernels::Activation activation = kernels::Activation::gelu;
};

/// Vision transformer (Dosovitskiy et al. 2021): patches through one linear layer (pixels beyond
/// the last whole patch of a row or column do not count), a class token,
/// learned positions, blocks h = h + attention(norm(h)); h = h + mlp(norm(h)), a norm and a
/// classifier over the class token.
///
/// Sites: vit.embeddings.patch_embeddings.projection (a convolution),
/// vit.layers.N.{layernorm_before, attention.{q,k,v,o}_proj, layernorm_after, mlp.{fc1, fc2}},
/// vit.layernorm, classifier: module paths of transformers 5; files keep older names, by which
/// configurations may mean the linear sites of blocks too. Hidden sites
/// are named as in files: vit.encoder.layer.N.{attention.output, output}, vit.encoder.layer.N; so
/// are attentions, vit.encoder.layer.N.attention.attention. Virtual tokens (vit.embeddings) come
/// between the class token and the patches, after the positions were added.
template <std::floating_point T>
class BasicVit final : public BasicModel<T> {
 public:
  BasicVit(const VitConfig& config, const BasicWeights<T>& weights) : config_(config) {
    if (config.heads <= 0 || config.hidden_size % config.heads != 0 || config.patch_size <= 0 ||
        config.image_size < config.patch_size)
      throw ValueError(concat("vit: ", config.heads, " heads for a width of ", config.hidden_size,
                              ", patches of ", config.patch_size, " in images of ",
                              config.image_size));
    const Index d = config.hidden_size, p = config.patch_size, side = config.image_size / p;
    const std::string projection = "vit.embeddings.patch_embeddings.projection";
    const auto kernel = weights.tensor(projection + ".weight", {d, config.channels, p, p});
    projection_ = {projection, BasicDenseLinear<T>(kernel.reshape({d, config.channels * p * p}),
                                                   weights.tensor(projection + ".bias", {d}))};
    projection_.conv = {{p, p}, config.channels, 1};
    class_token_ = weights.tensor("vit.embeddings.cls_token", {1, 1, d});
    prompt_ = {"vit.embeddings", d, 1};
    positions_ = weights.tensor("vit.embeddings.position_embeddings", {1, side * side + 1, d});
    for (Index l = 0; l < config.layers; ++l) {
      blocks_.push_back(std::make_unique<Block>());
      Block& b = *blocks_.back();
      const std::string path = concat("vit.layers.", l, "."),
                        file = concat("vit.encoder.layer.", l, ".");
      const auto linear = [&](const char* name, Index out, Index in) {
        BasicLinearSite<T> site(path + name, weights.linear(file_name(path + name), out, in));
        site.older_path = file_name(path + name);
        return site;
      };
      b.attention.query = linear("attention.q_proj", d, d);
      b.attention.key = linear("attention.k_proj", d, d);
      b.attention.value = linear("attention.v_proj", d, d);
      b.attention.site = {file + "attention.attention", l, config.heads, config.heads,
                          d / config.heads};
      b.attention_output = linear("attention.o_proj", d, d);
      b.mlp.up = linear("mlp.fc1", config.intermediate_size, d);
      b.mlp.down = linear("mlp.fc2", d, config.intermediate_size);
      b.mlp.activation = config.activation;
      b.norm_before = norm_site(weights, path + "layernorm_before", file + "layernorm_before");
      b.norm_after = norm_site(weights, path + "layernorm_after", file + "layernorm_after");
      b.after_attention = {file + "attention.output", d, HiddenRole::attention, "dense"};
      b.after_mlp = {file + "output", d, HiddenRole::feed_forward, "dense"};
      b.after_block = {concat("vit.encoder.layer.", l), d, HiddenRole::block};
    }
    norm_ = norm_site(weights, "vit.layernorm", "vit.layernorm");
    if (config.classes > 0)
      classifier_ = {"classifier", weights.linear("classifier", config.classes, d)};
    list_sites();
  }

  const VitConfig& config() const { return config_; }

  /// Hidden states after the last norm, [batch, 1 + virtual tokens + patches, hidden]; fewer tokens
  /// where an adapter merges some.
  BasicVar<T> hidden(BasicTape<T>& tape, const BasicBatch<T>& batch) const {
    const Index size = config_.image_size, d = config_.hidden_size;
    const Shape expected{batch.batch, config_.channels, size, size};
    if (!batch.pixels || batch.pixels.shape() != expected)
      throw ShapeError(
          concat("vit: pixels ", batch.pixels.shape().text(), ", expected ", expected.text()));
    // The rows of a batch of images have tokens as well.
    auto context = std::make_shared<ForwardContext>(*set_forward_context(tape, batch));
    context->seq_len = positions_.dim(1);
    tape.set_context(context);
    const auto patches = projection_(tape.constant(unfold(batch.pixels)));
    auto x = reshape(patches, {batch.batch, patches.rows() / batch.batch, d});
    const auto token = broadcast_to(tape.constant(class_token_), {batch.batch, 1, d});
    x = add(concat_along(1, std::vector<BasicVar<T>>{token, x}), tape.constant(positions_));
    x = prompt_(x, *context);
    const Index tokens = x.dim(1);
    EncoderPass<T> pass;
    pass.batch = batch.batch;
    pass.key_mask = key_mask(batch, tokens);
    x = reshape(x, {batch.batch * tokens, d});
    if (!stack_.adapters().empty()) stack_.begin(tape);
    x = stack_.finish(norm_(run_encoder(stack_, blocks_, x, pass)));
    return reshape(x, {batch.batch, x.rows() / batch.batch, d});
  }
  /// Of the classifier, [batch, classes]; the hidden states where there is none.
  BasicVar<T> logits(BasicTape<T>& tape, const BasicBatch<T>& batch) const override {
    const auto h = hidden(tape, batch);
    if (!classifier_.base()) return h;
    return classifier_(reshape(slice(h, 1, 0, 1), {batch.batch, config_.hidden_size}));
  }
  std::string file_name(const std::string& path) const override {
    static constexpr std::string_view kLayers = "vit.layers.";
    if (!path.starts_with(kLayers)) return path;
    const auto dot = path.find('.', kLayers.size());
    const std::string part = path.substr(dot + 1);
    const auto it = std::find_if(std::begin(kNames), std::end(kNames),
                                 [&](const auto& name) { return name.first == part; });
    return concat("vit.encoder.layer.", path.substr(kLayers.size(), dot - kLayers.size()), ".",
                  it == std::end(kNames) ? part : std::string(it->second));
  }
  BasicVar<T> loss(BasicTape<T>& tape, const BasicBatch<T>& batch) const override {
    return loss_of(logits(tape, batch), batch);
  }
  BasicVar<T> loss_of(const BasicVar<T>& logits, const BasicBatch<T>& batch) const override {
    if (!classifier_.base()) throw ValueError("vit: a model without a classifier has no loss");
    return classification_loss(logits, batch, config_.problem);
  }

 private:
  /// Linear layers of a block: paths of transformers 5, names in files.
  static constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"attention.q_proj", "attention.attention.query"},
      {"attention.k_proj", "attention.attention.key"},
      {"attention.v_proj", "attention.attention.value"},
      {"attention.o_proj", "attention.output.dense"},
      {"mlp.fc1", "intermediate.dense"},
      {"mlp.fc2", "output.dense"}};

  struct Block {
    BasicNormSite<T> norm_before, norm_after;
    MultiHeadAttention<T> attention;
    BasicLinearSite<T> attention_output;
    Mlp<T> mlp;
    BasicHiddenSite<T> after_attention, after_mlp, after_block;

    BasicVar<T> attention_part(const BasicVar<T>& x, const EncoderPass<T>& pass) const {
      const auto a = norm_before(x);
      return add(x, after_attention(a, attention_output(attention(a, pass)), x));
    }
    BasicVar<T> feed_forward_part(const BasicVar<T>& h, const BasicVar<T>& x) const {
      const auto m = norm_after(h);
      return after_block(x, add(h, after_mlp(m, mlp(m), h)));
    }
  };

  /// Which keys attention may see, where rows have different numbers of virtual tokens.
  std::shared_ptr<const std::vector<unsigned char>> key_mask(const BasicBatch<T>& batch,
                                                             Index tokens) const {
    const auto fill = fill_of(prompt_.virtual_tokens(batch.row_adapters, batch.batch));
    if (fill.empty()) return nullptr;
    auto mask = std::make_shared<std::vector<unsigned char>>(
        static_cast<std::size_t>(batch.batch * tokens), static_cast<unsigned char>(1));
    for (Index b = 0; b < batch.batch; ++b)
      std::fill_n(mask->begin() + b * tokens + prompt_.in_front(),
                  fill[static_cast<std::size_t>(b)], static_cast<unsigned char>(0));
    return mask;
  }

  /// Patches as rows, [batch · patches, channels · p · p].
  BasicTensor<T> unfold(const BasicTensor<T>& pixels) const {
    const Index size = config_.image_size, p = config_.patch_size, side = size / p,
                channels = config_.channels;
    const Index batch = pixels.shape()[0];
    auto rows = BasicTensor<T>::empty({batch * side * side, channels * p * p});
    T* out = rows.data();
    for (Index b = 0; b < batch; ++b)
      for (Index i = 0; i < side; ++i)
        for (Index j = 0; j < side; ++j)
          for (Index c = 0; c < channels; ++c)
            for (Index y = 0; y < p; ++y, out += p)
              std::copy_n(pixels.data() + ((b * channels + c) * size + i * p + y) * size + j * p, p,
                          out);
    return rows;
  }

  BasicNormSite<T> norm_site(const BasicWeights<T>& weights, const std::string& path,
                             const std::string& file) const {
    BasicNorm<T> layer;
    layer.rms = false;
    layer.weight = weights.tensor(file + ".weight", {config_.hidden_size});
    layer.bias = weights.tensor(file + ".bias", {config_.hidden_size});
    layer.eps = static_cast<T>(config_.norm_eps);
    return {path, layer};
  }

  void list_sites() {
    auto& table = this->sites_;
    table.info.architecture = "vit";
    table.info.hidden_size = config_.hidden_size;
    table.info.layers = config_.layers;
    table.info.heads = table.info.kv_heads = config_.heads;
    table.info.head_dim = config_.hidden_size / config_.heads;
    table.info.output_layers = {"classifier"};
    table.info.activation = config_.activation;
    table.prompt = &prompt_;
    table.stack = &stack_;
    table.linear.push_back(&projection_);
    for (const auto& b : blocks_) {
      for (auto* site : {&b->attention.query, &b->attention.key, &b->attention.value,
                         &b->attention_output, &b->mlp.up, &b->mlp.down})
        table.linear.push_back(site);
      table.norm.push_back(&b->norm_before);
      table.norm.push_back(&b->norm_after);
      table.attention.push_back(&b->attention.site);
      for (auto* site : {&b->after_attention, &b->after_mlp, &b->after_block})
        table.hidden.push_back(site);
    }
    table.norm.push_back(&norm_);
    if (classifier_.base()) table.linear.push_back(&classifier_);
  }

  VitConfig config_;
  BasicLinearSite<T> projection_;
  BasicTensor<T> class_token_, positions_;
  BasicPromptSite<T> prompt_;
  BasicStackSite<T> stack_;
  std::vector<std::unique_ptr<Block>> blocks_;
  BasicNormSite<T> norm_;
  BasicLinearSite<T> classifier_;
};

using Vit = BasicVit<float>;

#ifdef GRAFT_METHODS_COMPILED
extern template class BasicVit<float>;
extern template class BasicVit<double>;
#endif

}  // namespace graft::inline v0_1::models
