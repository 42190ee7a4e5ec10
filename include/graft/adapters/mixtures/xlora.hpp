#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/low_rank_term.hpp"
#include "graft/autograd/ops/gather_columns.hpp"
#include "graft/autograd/ops/topk_mixture.hpp"

namespace graft::inline v0_1 {

/// Configuration of X-LoRA; fields as in PEFT's XLoraConfig.
struct XLoRAConfig {
  std::optional<Index> hidden_size = {};             ///< null: of the model
  std::map<std::string, std::string> adapters = {};  ///< name of each expert -> folder of its files
  bool enable_softmax = true;
  bool enable_softmax_topk = false;
  bool layerwise_scalings = false;  ///< a mixture for every layer, else one for all
  Index depth = 1;                  ///< linear layers of the classifier
  Index size = 2048;                ///< width of those between
  double dropout = 0.2;
  bool use_trainable_adapters = false;
  double softmax_temperature = 1;
  std::optional<Index> top_k_lora = {};
  double scaling_pass_value = 0;  ///< scalings in the first pass
  double global_scaling_weight = 1;
  Selection select = {};

  static constexpr const char* kPeftType = "XLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("hidden_size", hidden_size);
    v("adapters", adapters);
    v("enable_softmax", enable_softmax);
    v("enable_softmax_topk", enable_softmax_topk);
    v("layerwise_scalings", layerwise_scalings);
    v("xlora_depth", depth);
    v("xlora_size", size);
    v("xlora_dropout_p", dropout);
    v("use_trainable_adapters", use_trainable_adapters);
    v("softmax_temperature", softmax_temperature);
    v("top_k_lora", top_k_lora);
    v("scaling_pass_value", scaling_pass_value);
    v("global_scaling_weight", global_scaling_weight);
  }
  /// @throws ValueError for sizes, a temperature or a dropout out of range.
  void validate() const {
    if (depth < 1 || (depth > 1 && size < 1))
      throw ValueError(
          concat("X-LoRA: xlora_depth ", depth, " and xlora_size ", size, ", expected at least 1"));
    if (!(softmax_temperature > 0))
      throw ValueError(
          concat("X-LoRA: softmax_temperature ", softmax_temperature, ", expected more than 0"));
    if (!(dropout >= 0 && dropout < 1))
      throw ValueError(concat("X-LoRA: xlora_dropout_p ", dropout, ", expected [0, 1)"));
    if (top_k_lora && *top_k_lora < 1)
      throw ValueError(concat("X-LoRA: top_k_lora ", *top_k_lora, ", expected at least 1"));
  }
};

/// The scalings of one forward pass, shared by the classifier of an X-LoRA and its sites.
template <std::floating_point T>
struct XLoRAScalings {
  BasicVar<T> values;  ///< [tokens, layers · experts]
  bool first_pass = false;
};

/// The classifier of X-LoRA: scalings of every token, layer and expert from the last hidden states
/// of a first pass.
///
/// depth linear layers with relu and dropout between: hidden → size → … → experts (· layers),
/// softmax over the experts at a temperature. The first pass runs without gradients, its experts
/// scaled by `scaling_pass_value`. Tensors, for the whole model:
/// internal_xlora_classifier.layers.N.{weight, bias}, N as torch numbers the layers with their
/// activations.
template <std::floating_point T>
class XLoRAClassifier final : public AdapterPart<T>, public PassAdapterInterface<T> {
 public:
  XLoRAClassifier(const XLoRAConfig& config, Index experts, Index layers, Index hidden,
                  InitContext<T>& context, std::shared_ptr<XLoRAScalings<T>> scalings)
      : config_(config), experts_(experts), layers_(layers), scalings_(std::move(scalings)) {
    const Index last = experts * (config.layerwise_scalings ? layers : 1);
    Index in = hidden, number = 0;
    for (Index d = 0; d < config.depth; ++d) {
      const Index out = d + 1 == config.depth ? last : config.size;
      auto weight = BasicTensor<T>::zeros({out, in}), bias = BasicTensor<T>::zeros({out});
      if (!context.loading) {
        weight = detail::kaiming_uniform_tensor<T>(context.generator, {out, in}, in);
        bias = detail::kaiming_uniform_tensor<T>(context.generator, {out}, in);
      }
      stack_.push_back({number, BasicParameter<T>(weight), BasicParameter<T>(bias)});
      number += config.dropout > 0 ? 3 : 2;
      in = out;
    }
  }

  /// Scalings [tokens, layers · experts] from hidden states [tokens, hidden].
  BasicVar<T> classify(const BasicVar<T>& hidden) const {
    auto& tape = hidden.tape();
    auto h = hidden;
    for (std::size_t i = 0; i < stack_.size(); ++i) {
      h = add(matmul(h, tape.parameter(stack_[i].weight), Transpose::no, Transpose::yes),
              tape.parameter(stack_[i].bias));
      if (i + 1 < stack_.size()) h = graft::dropout(relu(h), config_.dropout);
    }
    const Index tokens = h.rows();
    h = reshape(h, {tokens, config_.layerwise_scalings ? layers_ : 1, experts_});
    if (config_.enable_softmax)
      h = softmax(scale(h, static_cast<T>(1 / config_.softmax_temperature)));
    if (!config_.layerwise_scalings) h = broadcast_to(h, {tokens, layers_, experts_});
    return reshape(h, {tokens, layers_ * experts_});
  }
  void before(BasicTape<T>& tape,
              const std::function<BasicTensor<T>(BasicTape<T>&)>& hidden_states) const override {
    if (scalings_->first_pass) return;
    scalings_->values = {};
    scalings_->first_pass = true;
    struct Done {
      XLoRAScalings<T>* scalings;
      ~Done() { scalings->first_pass = false; }
    } done{scalings_.get()};
    BasicTape<T> quiet({.gradients = false, .training = tape.training()});
    const auto hidden = hidden_states(quiet);
    scalings_->values = classify(tape.constant(hidden));
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    for (const auto& layer : stack_)
      for (const bool bias : {false, true})
        list.push_back({.name = concat("internal_xlora_classifier.layers.", layer.number,
                                       bias ? ".bias" : ".weight"),
                        .parameter = bias ? layer.bias : layer.weight,
                        .index = {},
                        .scope = AdapterTensor<T>::Scope::model,
                        .file_shape = {},
                        .group = "router"});
    return list;
  }

 private:
  struct Layer {
    Index number;
    BasicParameter<T> weight, bias;
  };
  XLoRAConfig config_;
  Index experts_, layers_;
  std::shared_ptr<XLoRAScalings<T>> scalings_;
  std::vector<Layer> stack_;
};

/// The scalings of one adapted layer, cut to the top_k_lora largest where asked for.
template <std::floating_point T>
class XLoRAShares {
 public:
  XLoRAShares(const XLoRAConfig& config, Index experts, Index layer,
              std::shared_ptr<XLoRAScalings<T>> scalings)
      : config_(config), experts_(experts), layer_(layer), scalings_(std::move(scalings)) {}

  /// […, experts] for tokens of this shape, […, any]; empty in a first pass without experts.
  BasicVar<T> weights(BasicTape<T>& tape, const Shape& shape) const {
    const Index n = experts_;
    BasicVar<T> w;
    if (scalings_->first_pass) {
      if (config_.scaling_pass_value == 0) return {};
      w = tape.constant(
          BasicTensor<T>::full(shape.with_last(n), static_cast<T>(config_.scaling_pass_value)));
    } else {
      auto all = scalings_->values;
      if (!all)
        throw ValueError("X-LoRA: the model has no first pass, which the scalings come from");
      if (&all.tape() != &tape) {
        if (tape.gradients())
          throw ValueError(
              "X-LoRA: gradients of the classifier do not pass a checkpoint; keep "
              "the activations of the blocks");
        all = tape.constant(all.value());
      }
      if (all.rows() != shape.elements() / shape[shape.rank() - 1])
        throw ShapeError(
            concat("X-LoRA: scalings of ", all.rows(), " tokens for the input ", shape.text()));
      w = reshape(slice(all, -1, layer_ * n, n), shape.with_last(n));
    }
    if (config_.top_k_lora) w = mul(w, tape.constant(kept(w.value())));
    if (config_.enable_softmax_topk) {
      auto gone = BasicTensor<T>::zeros(w.shape()), there = BasicTensor<T>::full(w.shape(), 1);
      for (Index i = 0; i < w.size(); ++i)
        if (w.value()[i] == 0) {
          gone[i] = std::numeric_limits<T>::lowest() / 2;
          there[i] = 0;
        }
      w = mul(softmax(add(w, tape.constant(gone))), tape.constant(there));
    }
    return w;
  }

 private:
  /// 1 for the largest of each row.
  BasicTensor<T> kept(const BasicTensor<T>& w) const {
    const Index n = w.cols();
    auto mask = BasicTensor<T>::zeros(w.shape());
    for (Index r = 0; r < w.rows(); ++r)
      for (const auto e : largest(w.data() + r * n, n, std::min(*config_.top_k_lora, n)))
        mask[r * n + e] = 1;
    return mask;
  }

  XLoRAConfig config_;
  Index experts_, layer_;
  std::shared_ptr<XLoRAScalings<T>> scalings_;
};

/// Name of an expert with its term; empty where it does not adapt a layer.
template <std::floating_point T>
using XLoRAExpert = std::pair<std::string, std::optional<LowRankTerm<T>>>;

/// The experts at one layer and their scalings.
template <std::floating_point T>
class XLoRAMixture {
 public:
  using Expert = XLoRAExpert<T>;

  XLoRAMixture(const XLoRAConfig& config, std::vector<Expert> experts, Index layer,
               std::shared_ptr<XLoRAScalings<T>> scalings)
      : config_(config),
        experts_(std::move(experts)),
        shares_(config, std::ssize(experts_), layer, std::move(scalings)) {}

  /// y + g Σ_e w_e s_e h_e B_eᵀ with h_e = project(term, A_e) of an input of this shape.
  template <class Project>
  BasicVar<T> add_to(BasicVar<T> y, const Shape& input, const Project& project) const {
    auto& tape = y.tape();
    const auto w = shares_.weights(tape, input);
    if (!w) return y;
    for (std::size_t e = 0; e < experts_.size(); ++e) {
      if (!experts_[e].second) continue;
      const auto& term = *experts_[e].second;
      const auto value = [&](const BasicParameter<T>& p) {
        return config_.use_trainable_adapters ? tape.parameter(p) : tape.constant(p.value());
      };
      const auto h = project(term, value(term.a));
      const auto share = scale(slice(w, -1, static_cast<Index>(e), 1),
                               term.scaling * static_cast<T>(config_.global_scaling_weight));
      y = add(y, matmul(mul(h, share), value(term.b), Transpose::no, Transpose::yes));
    }
    return y;
  }
  /// What `use_trainable_adapters` trains.
  std::vector<AdapterTensor<T>> tensors(const char* a_name, const char* b_name) const {
    std::vector<AdapterTensor<T>> list;
    if (!config_.use_trainable_adapters) return list;
    for (const auto& [name, term] : experts_) {
      if (!term) continue;
      for (const bool b : {false, true})
        list.push_back({.name = concat("xlora.", name, ".", b ? b_name : a_name),
                        .parameter = b ? term->b : term->a,
                        .index = {},
                        .saved = false,
                        .file_shape = {},
                        .group = b ? "lora_B" : "lora_A"});
    }
    return list;
  }

 private:
  XLoRAConfig config_;
  std::vector<Expert> experts_;
  XLoRAShares<T> shares_;
};

/// X-LoRA at one layer: y = base(x) + g Σ_e w_e s_e drop(x) A_eᵀ B_eᵀ, w the scalings of the token
/// and this layer, cut to the top_k_lora largest where asked for, g = global_scaling_weight.
///
/// The experts are LoRAs that the model has already, frozen unless `use_trainable_adapters`. Does
/// not merge. Source: Buehler and Buehler 2024 (arXiv:2402.07148), section 2.
template <std::floating_point T>
class XLoRALinear final : public LinearPart<T> {
 public:
  using Expert = XLoRAExpert<T>;

  XLoRALinear(const XLoRAConfig& config, std::vector<Expert> experts, Index layer,
              std::shared_ptr<XLoRAScalings<T>> scalings)
      : mixture_(config, std::move(experts), layer, std::move(scalings)) {}

  BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const override {
    return mixture_.add_to(
        linear(base, x), x.shape(), [&](const LowRankTerm<T>& term, const BasicVar<T>& a) {
          return matmul(graft::dropout(x, term.dropout), a, Transpose::no, Transpose::yes);
        });
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    return mixture_.tensors("lora_A.weight", "lora_B.weight");
  }
  std::string merge_reason() const override {
    return "X-LoRA mixes its experts anew for every token; a weight cannot hold that";
  }

 private:
  XLoRAMixture<T> mixture_;
};

/// X-LoRA at an embedding: rows of the ids + g Σ_e w_e s_e A_e[:, ids]ᵀ B_eᵀ.
template <std::floating_point T>
class XLoRAEmbedding final : public EmbeddingPart<T> {
 public:
  using Expert = XLoRAExpert<T>;

  XLoRAEmbedding(const XLoRAConfig& config, std::vector<Expert> experts, Index layer,
                 std::shared_ptr<XLoRAScalings<T>> scalings)
      : mixture_(config, std::move(experts), layer, std::move(scalings)) {}

  BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const override {
    return mixture_.add_to(
        base(tape, ids), Shape{std::ssize(ids), base.dim()},
        [&](const LowRankTerm<T>&, const BasicVar<T>& a) { return gather_columns(a, ids); });
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    return mixture_.tensors("lora_embedding_A", "lora_embedding_B");
  }
  std::string merge_reason() const override {
    return "X-LoRA mixes its experts anew for every token; a table cannot hold that";
  }

 private:
  XLoRAMixture<T> mixture_;
};

/// X-LoRA: LoRAs of a model mixed token by token by a classifier that sees the hidden states of a
/// first pass. See XLoRAClassifier, XLoRALinear and
/// XLoRAEmbedding.
template <std::floating_point T>
struct XLoRAMethod {
  using Scalar = T;
  using Config = XLoRAConfig;

  static Config example() {
    Config config;
    config.depth = 2;
    config.size = 16;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "XLORA",
            .name = "X-LoRA",
            .family = "mixtures",
            .paper = "arXiv:2402.07148",
            .sites = "linear, embedding",
            .parameters = "; hidden · experts · layers (+ layers between)",
            .mergeable = false,
            .identity_at_init = false};
  }
  /// Adapters that the model must have, and where their files are.
  static std::map<std::string, std::string> experts(const Config& config) {
    return config.adapters;
  }
  /// The experts in the order in which the classifier counts them: by number, or by name.
  static std::vector<std::string> expert_names(const Config& config) {
    std::vector<std::string> names;
    bool numbers = true;
    for (const auto& [name, folder] : config.adapters) {
      names.push_back(name);
      numbers = numbers && name.find_first_not_of("0123456789") == std::string::npos;
    }
    if (numbers)
      std::stable_sort(names.begin(), names.end(),
                       [](const auto& a, const auto& b) { return a.size() < b.size(); });
    return names;
  }
  static bool targets(const Config&, const std::string&) { return true; }

  template <class Set, class Table>
  static void finish(const Config& config, Set& set, Table& table, InitContext<T>& context) {
    if (config.adapters.empty())
      throw ValueError(
          "X-LoRA: adapters is empty, expected names and folders of the LoRAs that it mixes");
    if (table.pass == nullptr)
      throw ValueError("X-LoRA: the model has no first pass that the scalings could come from");
    const auto names = expert_names(config);
    const auto scalings = std::make_shared<XLoRAScalings<T>>();
    Index layers = 0;
    std::map<std::string, bool> used;
    const auto place = [&]<class Part, class Mixed>(auto& site, const Part*, const Mixed*,
                                                    bool conv) {
      std::vector<XLoRAExpert<T>> list;
      bool any = false;
      for (const auto& name : names) {
        std::optional<LowRankTerm<T>> term;
        for (const auto& named : site.adapters()) {
          if (named.name != name) continue;
          const auto* part = dynamic_cast<const Part*>(named.adapter.get());
          if (part != nullptr) term = part->low_rank_term();
          if (!term || conv)
            throw ValueError(concat("X-LoRA: '", name, "' has no plain LoRA at ", site.path(),
                                    conv ? ", a convolution, whose places are no tokens" : ""));
          used[name] = any = true;
        }
        list.emplace_back(name, term);
      }
      if (!any) return;
      auto part = std::make_shared<Mixed>(config, std::move(list), layers++, scalings);
      site.adapters().push_back({set.name(), part});
      set.add_part(site.path(), part);
    };
    for (auto* site : table.embedding)
      place(*site, static_cast<const EmbeddingPart<T>*>(nullptr),
            static_cast<const XLoRAEmbedding<T>*>(nullptr), false);
    for (auto* site : table.linear)
      place(*site, static_cast<const LinearPart<T>*>(nullptr),
            static_cast<const XLoRALinear<T>*>(nullptr), !site->conv.kernel.empty());
    for (const auto& name : names)
      if (!used[name])
        throw ValueError(
            concat("X-LoRA: the model has no adapter '", name, "'; load the experts first"));
    auto filled = config;
    if (filled.hidden_size.value_or(0) < 1) filled.hidden_size = table.info.hidden_size;
    detail::keep_config(filled, set);
    auto classifier =
        std::make_shared<XLoRAClassifier<T>>(config, static_cast<Index>(config.adapters.size()),
                                             layers, *filled.hidden_size, context, scalings);
    table.pass->adapters().push_back({set.name(), classifier});
    set.add_part("", classifier);
  }
};

}  // namespace graft::inline v0_1
