#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prompt_table.hpp"

namespace graft::inline v0_1 {

/// Configuration of P-tuning; fields as in PEFT's PromptEncoderConfig.
struct PTuningConfig {
  PromptFields prompt;
  std::string encoder_reparameterization_type = "MLP";  ///< MLP, LSTM
  std::optional<Index> encoder_hidden_size;             ///< none: as wide as a token
  Index encoder_num_layers = 2;                         ///< of the LSTM; an MLP has three
  double encoder_dropout = 0;                           ///< between the layers of the LSTM
  std::vector<std::string> modules_to_save;

  static constexpr const char* kPeftType = "P_TUNING";

  template <class Visitor>
  void fields(Visitor& v) {
    prompt.fields(v);
    v("encoder_reparameterization_type", encoder_reparameterization_type);
    v("encoder_hidden_size", encoder_hidden_size);
    v("encoder_num_layers", encoder_num_layers);
    v("encoder_dropout", encoder_dropout);
    nullable_field(v, "modules_to_save", modules_to_save);
  }
  /// @throws ValueError without virtual tokens, for an unknown encoder or sizes out of range.
  void validate() const {
    prompt.validate("P-tuning");
    if (encoder_reparameterization_type != "MLP" && encoder_reparameterization_type != "LSTM")
      throw ValueError(concat("P-tuning: encoder_reparameterization_type '",
                              encoder_reparameterization_type, "', expected MLP or LSTM"));
    if (encoder_hidden_size.value_or(1) < 1 || encoder_num_layers < 1 || !(encoder_dropout >= 0) ||
        !(encoder_dropout < 1))
      throw ValueError(concat("P-tuning: encoder_hidden_size ", encoder_hidden_size.value_or(1),
                              ", encoder_num_layers ", encoder_num_layers, ", encoder_dropout ",
                              encoder_dropout));
  }
};

namespace detail {

/// One direction of one layer of an LSTM (Hochreiter and Schmidhuber 1997): i, f, o = σ(·), g =
/// tanh(·) of W x + b + U h + c; the cell is f ⊙ cell + i ⊙ g, h = o ⊙ tanh(cell).
template <std::floating_point T>
class LstmDirection {
 public:
  LstmDirection(Index in, Index hidden, InitContext<T>& context)
      : weight_x_(draw({4 * hidden, in}, hidden, context)),
        weight_h_(draw({4 * hidden, hidden}, hidden, context)),
        bias_x_(draw({4 * hidden}, hidden, context)),
        bias_h_(draw({4 * hidden}, hidden, context)),
        hidden_(hidden) {}

  /// x: [tokens, in] -> [tokens, hidden], read from the end if `reverse`.
  BasicVar<T> operator()(const BasicVar<T>& x, bool reverse) const {
    auto& tape = x.tape();
    const Index tokens = x.rows();
    const auto from_x = trained_affine<T>(x, tape.parameter(weight_x_), tape.parameter(bias_x_));
    const auto weight = tape.parameter(weight_h_), bias = tape.parameter(bias_h_);
    auto h = tape.constant(BasicTensor<T>::zeros({1, hidden_})), cell = h;
    std::vector<BasicVar<T>> states;
    for (Index step = 0; step < tokens; ++step) {
      const Index t = reverse ? tokens - 1 - step : step;
      const auto all = add(slice(from_x, 0, t, 1), trained_affine<T>(h, weight, bias));
      const auto gate = [&](Index k) { return slice(all, 1, k * hidden_, hidden_); };
      cell = add(mul(sigmoid(gate(1)), cell), mul(sigmoid(gate(0)), tanh(gate(2))));
      h = mul(sigmoid(gate(3)), tanh(cell));
      states.push_back(h);
    }
    if (reverse) std::reverse(states.begin(), states.end());
    return concat_along(0, states);
  }
  void list(std::vector<std::pair<std::string, BasicParameter<T>>>& tensors,
            const std::string& suffix) const {
    tensors.emplace_back("lstm_head.weight_ih" + suffix, weight_x_);
    tensors.emplace_back("lstm_head.weight_hh" + suffix, weight_h_);
    tensors.emplace_back("lstm_head.bias_ih" + suffix, bias_x_);
    tensors.emplace_back("lstm_head.bias_hh" + suffix, bias_h_);
  }

 private:
  static BasicParameter<T> draw(const Shape& shape, Index hidden, InitContext<T>& context) {
    auto t = BasicTensor<T>::zeros(shape);
    const double bound = 1 / std::sqrt(static_cast<double>(hidden));
    if (!context.loading) context.generator.uniform(t.data(), t.size(), -bound, bound);
    return BasicParameter<T>(std::move(t));
  }

  BasicParameter<T> weight_x_, weight_h_, bias_x_, bias_h_;
  Index hidden_;
};

/// The encoder of P-tuning: three layers with ReLU between them, or an LSTM in both directions and
/// two such layers.
template <std::floating_point T>
class PTuningEncoder final : public PromptEncoder<T> {
 public:
  PTuningEncoder(const PTuningConfig& config, InitContext<T>& context)
      : embedding_(embedding_values<T>({config.prompt.rows(), config.prompt.dim()}, context)),
        dropout_(config.encoder_dropout) {
    const Index dim = config.prompt.dim(), hidden = config.encoder_hidden_size.value_or(dim);
    if (config.encoder_reparameterization_type == "LSTM") {
      for (Index l = 0; l < config.encoder_num_layers; ++l)
        for (int direction = 0; direction < 2; ++direction)
          lstm_.emplace_back(l == 0 ? dim : 2 * hidden, hidden, context);
      layers_.emplace_back(2 * hidden, 2 * hidden, context);
      layers_.emplace_back(dim, 2 * hidden, context);
    } else {
      layers_.emplace_back(hidden, dim, context);
      layers_.emplace_back(hidden, hidden, context);
      layers_.emplace_back(dim, hidden, context);
    }
  }
  std::vector<std::pair<std::string, BasicParameter<T>>> tensors() const override {
    std::vector<std::pair<std::string, BasicParameter<T>>> list{{"embedding.weight", embedding_}};
    for (std::size_t k = 0; k < lstm_.size(); ++k)
      lstm_[k].list(list, concat("_l", k / 2, k % 2 == 0 ? "" : "_reverse"));
    for (std::size_t k = 0; k < layers_.size(); ++k)
      layers_[k].list(list, concat("mlp_head.", 2 * k));
    return list;
  }
  BasicVar<T> columns(BasicTape<T>& tape, Index first, Index count) const override {
    auto x = tape.parameter(embedding_);
    for (std::size_t k = 0; k < lstm_.size(); k += 2) {
      if (k > 0 && dropout_ > 0) x = dropout(x, dropout_);
      x = concat_along(1, std::vector<BasicVar<T>>{lstm_[k](x, false), lstm_[k + 1](x, true)});
    }
    for (std::size_t k = 0; k + 1 < layers_.size(); ++k) x = relu(layers_[k](x));
    const auto& last = layers_.back();
    return count == last.bias.size() ? last(x) : last(x, first, count);
  }

 private:
  BasicParameter<T> embedding_;
  std::vector<LstmDirection<T>> lstm_;
  std::vector<PromptLayer<T>> layers_;
  double dropout_;
};

}  // namespace detail

/// P-tuning: virtual tokens P = f(E) in front of the input, with trained E: [tokens, dim] and an
/// encoder f, an MLP dim -> h -> h -> dim or a two-way LSTM and an MLP 2h -> 2h -> dim.
///
/// Trained, MLP: tokens · dim + 2 h dim + h² + 2 h + dim; PEFT fixes its depth. Not the identity at
/// the start; does not merge. Rows for an encoder and a decoder as in prompt tuning. Source: Liu et
/// al. 2021, arXiv:2103.10385; PEFT has no anchor tokens. Tensor in finished files:
/// prompt_embeddings = P, so f is lost there and P is trained on from such a file.
template <std::floating_point T>
struct PTuningMethod {
  using Scalar = T;
  using Config = PTuningConfig;
  static Config example() {
    Config config;
    config.prompt.num_virtual_tokens = 4;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "P_TUNING",
            .name = "P-tuning",
            .family = "prompts",
            .paper = "arXiv:2103.10385",
            .sites = "prompt",
            .parameters =
                "t d + 2 h d + h^2 + 2 h + d, h = encoder_hidden_size, t = num_virtual_tokens",
            .mergeable = false,
            .path_prefix = "base_model.",
            .identity_at_init = false,
            .adds_up = false,
            .unused_dropout = "encoder_dropout"};
  }
  static std::shared_ptr<PromptPart<T>> prompt(Config config, const PromptSiteInfo<T>& site,
                                               InitContext<T>& context) {
    config.prompt.follow(site.model);
    detail::check_prompt_width("P-tuning", config.prompt, site);
    return std::make_shared<TablePrompt<T>>(
        std::make_shared<PromptTable<T>>(
            Shape{config.prompt.rows(), config.prompt.dim()},
            std::make_unique<detail::PTuningEncoder<T>>(config, context)),
        config.prompt.tokens());
  }
  template <class Set, class Table>
  static void finish(Config config, Set& set, const Table& table, InitContext<T>&) {
    config.prompt.follow(table.info);
    config.encoder_hidden_size = config.encoder_hidden_size.value_or(config.prompt.dim());
    detail::keep_config(config, set);
  }
};

}  // namespace graft::inline v0_1
