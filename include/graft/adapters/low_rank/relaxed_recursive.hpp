#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Configuration of relaxed recursive transformers.
struct RelaxedRecursiveConfig {
  Index rank = 512;
  std::optional<Index> shared_blocks = {};  ///< nothing: half of the layers
  bool train_shared = false;                ///< the looped blocks too
  std::string init = "average";             ///< of the blocks: average, stepwise or lower
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "RELAXED_RECURSIVE";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("shared_blocks", shared_blocks);
    v("train_shared", train_shared);
    v("init", init);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for settings out of range or an unknown word.
  void validate() const {
    if (rank < 1 || shared_blocks.value_or(1) < 1)
      throw ValueError(concat("relaxed recursive: r ", rank, ", shared_blocks ",
                              shared_blocks.value_or(1), ", expected at least 1"));
    if (init != "average" && init != "stepwise" && init != "lower")
      throw ValueError(
          concat("relaxed recursive: init '", init, "', expected average, stepwise or lower"));
  }
  /// @throws ValueError for more blocks than layers.
  Index blocks(Index layers) const {
    const Index k = shared_blocks.value_or(std::max<Index>(1, layers / 2));
    if (k > layers)
      throw ValueError(concat("relaxed recursive: shared_blocks ", k, " of ", layers, " layers"));
    return k;
  }
};

/// The original layer that block j of K takes: ⌊j (L − 1) / (K − 1) + ½⌋ stepwise, j for lower.
inline Index recursive_source(const std::string& init, Index block, Index blocks, Index layers) {
  if (init == "lower") return block;
  if (blocks == 1) return 0;
  return static_cast<Index>(std::floor(
      static_cast<double>(block * (layers - 1)) / static_cast<double>(blocks - 1) + 0.5));
}
/// A tensor of looped block j from those of the layers: the mean over the layers that run it (every
/// K-th from j), or a copy of one of them.
template <std::floating_point T>
BasicTensor<T> recursive_block(const std::vector<BasicTensor<T>>& layers, Index block, Index blocks,
                               const std::string& init) {
  const Index count = static_cast<Index>(layers.size());
  if (init != "average")
    return layers[static_cast<std::size_t>(recursive_source(init, block, blocks, count))].clone();
  const auto& first = layers[static_cast<std::size_t>(block)];
  std::vector<double> sum(static_cast<std::size_t>(first.size()), 0.0);
  double n = 0;
  for (Index k = block; k < count; k += blocks, ++n)
    for (Index i = 0; i < first.size(); ++i)
      sum[static_cast<std::size_t>(i)] +=
          static_cast<double>(layers[static_cast<std::size_t>(k)][i]);
  auto mean = BasicTensor<T>::empty(first.shape());
  for (Index i = 0; i < mean.size(); ++i)
    mean[i] = static_cast<T>(sum[static_cast<std::size_t>(i)] / n);
  return mean;
}
/// What sharing lost, to rank r: B = U_r S_r: [out, r], A = V_rᵀ: [r, in] of W − W̄; rows of zeros
/// where r is above min(out, in).
template <std::floating_point T>
std::pair<BasicTensor<T>, BasicTensor<T>> recursive_factors(const BasicTensor<T>& w,
                                                            const BasicTensor<T>& shared, Index r) {
  auto residual = w.clone();
  for (Index i = 0; i < w.size(); ++i) residual[i] -= shared[i];
  const auto d = svd(residual);
  auto b = BasicTensor<T>::zeros({w.rows(), r}), a = BasicTensor<T>::zeros({r, w.cols()});
  for (Index k = 0; k < std::min(r, d.s.size()); ++k) {
    for (Index o = 0; o < w.rows(); ++o) b(o, k) = d.u(o, k) * d.s[k];
    for (Index i = 0; i < w.cols(); ++i) a(k, i) = d.v(i, k);
  }
  return {b, a};
}

/// A linear layer of a looped block.
template <std::floating_point T>
struct RecursiveLayer {
  std::string name;  ///< of its tensors: "shared.0.mlp.up_proj"
  BasicDenseLinear<T> frozen;
  BasicParameter<T> weight, bias;  ///< in place of the frozen ones, where they are trained
};

/// One depth of a relaxed recursive transformer: y = x W̄_jᵀ + b̄_j + (x Aᵀ) Bᵀ, j = depth mod K.
///
/// See RelaxedRecursiveMethod.
template <std::floating_point T>
class BasicRelaxedRecursive {
 public:
  using Scalar = T;

  /// Without factors until `loop`; rank 0: none at all.
  explicit BasicRelaxedRecursive(Index rank) : rank_(rank) {}

  /// Puts the depth on a block; `original` is the layer's weight, empty if a file follows.
  void loop(std::shared_ptr<RecursiveLayer<T>> layer, const BasicTensor<T>& original) {
    layer_ = std::move(layer);
    if (rank_ == 0) return;
    const Index in = layer_->frozen.in_features(), out = layer_->frozen.out_features();
    auto b = BasicTensor<T>::zeros({out, rank_}), a = BasicTensor<T>::zeros({rank_, in});
    if (original)
      std::tie(b, a) = recursive_factors(original, layer_->frozen.dense_weight(), rank_);
    a_ = BasicParameter<T>(a);
    b_ = BasicParameter<T>(b);
  }

  template <Linear L>
  BasicVar<T> apply(const L&, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto term = [&](const BasicVar<T>& y) {
      if (!a_) return y;
      const auto h = matmul(x, tape.parameter(a_), Transpose::no, Transpose::yes);
      return add(y, matmul(h, tape.parameter(b_), Transpose::no, Transpose::yes));
    };
    if (layer_->weight) {
      const auto y = matmul(x, tape.parameter(layer_->weight), Transpose::no, Transpose::yes);
      return term(layer_->bias ? add(y, tape.parameter(layer_->bias)) : y);
    }
    if (!a_) return linear(layer_->frozen, x);
    return linear_low_rank(layer_->frozen, x, x, tape.parameter(a_), tape.parameter(b_), T{1});
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](std::string name, const BasicParameter<T>& parameter, bool shared) {
      if (!parameter) return;
      list.emplace_back();
      list.back().name = std::move(name);
      list.back().parameter = parameter;
      if (shared) list.back().scope = AdapterTensor<T>::Scope::model;
    };
    put("lora_A.weight", a_, false);
    put("lora_B.weight", b_, false);
    if (layer_) {
      put("model." + layer_->name + ".weight", layer_->weight, true);
      put("model." + layer_->name + ".bias", layer_->bias, true);
    }
    return list;
  }

 private:
  Index rank_;
  std::shared_ptr<RecursiveLayer<T>> layer_;
  BasicParameter<T> a_, b_;
};

/// A norm of a looped block in place of the layer's own.
template <std::floating_point T>
class RecursiveNorm {
 public:
  using Scalar = T;
  RecursiveNorm(std::string name, BasicNorm<T> norm, bool trained)
      : name_(std::move(name)), norm_(std::move(norm)), trained_(trained) {
    if (norm_.weight) weight_ = BasicParameter<T>(norm_.weight, trained);
    if (norm_.bias) bias_ = BasicParameter<T>(norm_.bias, trained);
  }
  BasicVar<T> apply(const BasicNorm<T>&, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    return norm_.apply(x, weight_ ? tape.parameter(weight_) : BasicVar<T>{},
                       bias_ ? tape.parameter(bias_) : BasicVar<T>{});
  }
  std::optional<BasicNorm<T>> merged(const BasicNorm<T>&) const {
    auto norm = norm_;
    if (weight_) norm.weight = weight_.value().clone();
    if (bias_) norm.bias = bias_.value().clone();
    return norm;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    if (!trained_) return list;
    for (const bool first : {true, false}) {
      const auto& parameter = first ? weight_ : bias_;
      if (!parameter) continue;
      list.emplace_back();
      list.back().name = "model." + name_ + (first ? ".weight" : ".bias");
      list.back().parameter = parameter;
      list.back().scope = AdapterTensor<T>::Scope::model;
    }
    return list;
  }

 private:
  std::string name_;
  BasicNorm<T> norm_;
  bool trained_;
  BasicParameter<T> weight_, bias_;
};

/// Relaxed recursive transformer: the L layers become K blocks that are looped, each depth with a
/// low-rank correction of its own: y = x W̄_jᵀ + b̄_j + (x Aᵀ) Bᵀ, j = depth mod K.
///
/// Every linear layer and norm with a layer number in its path runs the tensors of its block; those
/// of the target modules have factors A: [r, in], B: [out, r], from the singular values of W − W̄_j.
/// Trained: r (in + out) a target, with train_shared also the K blocks. Frozen blocks are made from
/// the model again when a file is loaded, and exist once for all depths that run them; switched
/// off, the model is the original one. No identity at the start unless r reaches the rank of what
/// sharing lost; merges depth by depth, which undoes the sharing. Source: Bae et al. 2024
/// (arXiv:2410.20672), section 3. Tensors: lora_A.weight, lora_B.weight, shared.j.NAME.weight,
/// .bias.
template <std::floating_point T>
struct RelaxedRecursiveMethod {
  using Scalar = T;
  using Config = RelaxedRecursiveConfig;
  static constexpr bool kByRole = true;
  static Config example() {
    Config config;
    config.rank = 4;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "RELAXED_RECURSIVE",
            .name = "Relaxed Recursive",
            .family = "low_rank",
            .paper = "arXiv:2410.20672",
            .sites = "linear, norm",
            .parameters = "; r (in + out), with train_shared the looped blocks too",
            .in_peft = false,
            .identity_at_init = false,
            .adds_up = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>&) {
    config.validate();
    if (site.layer < 0) return nullptr;
    if (!site.expert.parameter.empty())
      throw ValueError(
          concat("relaxed recursive: the experts of ", site.path, " are not supported"));
    return linear_part(BasicRelaxedRecursive<T>(config.rank));
  }
  /// @throws ValueError for layers that are not alike.
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    for (const auto& [name, depths] : by_depth(table.linear))
      loop(config, set, name, depths, context);
    for (const auto& [name, depths] : by_depth(table.norm)) loop(config, set, name, depths);
  }

 private:
  /// Name of a site below its layer: "self_attn.q_proj" of "model.layers.3.self_attn.q_proj"; empty
  /// if no layer has it.
  static std::string name_in_layer(const std::string& path) {
    const Index layer = layer_of(path);
    if (layer < 0) return {};
    const std::string number = concat(".", layer, ".");
    const auto at = path.find(number);
    return at == std::string::npos ? std::string() : path.substr(at + number.size());
  }
  template <class Site>
  static std::map<std::string, std::map<Index, Site*>> by_depth(const std::vector<Site*>& sites) {
    std::map<std::string, std::map<Index, Site*>> names;
    for (auto* site : sites)
      if (const auto name = name_in_layer(site->path()); !name.empty())
        if (!names[name].emplace(layer_of(site->path()), site).second)
          throw ValueError(concat("relaxed recursive: two stacks of layers have ", name));
    return names;
  }
  template <class Set>
  static void loop(const Config& config, Set& set, const std::string& name,
                   const std::map<Index, BasicLinearSite<T>*>& depths, InitContext<T>& context) {
    std::vector<BasicTensor<T>> weights, biases;
    for (const auto& [depth, site] : depths) {
      weights.push_back(site->base().dense_weight());
      if (weights.back().shape() != weights.front().shape())
        throw ValueError(concat("relaxed recursive: ", site->path(), " ",
                                weights.back().shape().text(), ", other layers have ",
                                weights.front().shape().text()));
      if (const auto bias = site->base().bias()) biases.push_back(bias);
    }
    const Index count = static_cast<Index>(weights.size()), blocks = config.blocks(count);
    if (!biases.empty() && biases.size() != weights.size())
      throw ValueError(concat("relaxed recursive: some of ", name, " have a bias"));
    std::vector<std::shared_ptr<RecursiveLayer<T>>> shared;
    for (Index j = 0; j < blocks; ++j) {
      auto w = recursive_block(weights, j, blocks, config.init);
      auto b = biases.empty() ? BasicTensor<T>{} : recursive_block(biases, j, blocks, config.init);
      auto layer = std::make_shared<RecursiveLayer<T>>(
          RecursiveLayer<T>{concat("shared.", j, ".", name), BasicDenseLinear<T>(w, b), {}, {}});
      if (config.train_shared) {
        layer->weight = BasicParameter<T>(w.clone());
        if (b) layer->bias = BasicParameter<T>(b.clone());
      }
      shared.push_back(std::move(layer));
    }
    Index k = 0;
    for (const auto& [depth, site] : depths) {
      BasicRelaxedRecursive<T>* method = nullptr;
      for (const auto& placed : set.parts())
        if (placed.path == site->path())
          method = method_of<BasicRelaxedRecursive<T>>(placed.part.get());
      if (method == nullptr) {
        auto part = linear_part(BasicRelaxedRecursive<T>(0));
        method = method_of<BasicRelaxedRecursive<T>>(part.get());
        site->adapters().push_back({set.name(), part});
        set.add_part(site->path(), part);
      }
      method->loop(shared[static_cast<std::size_t>(k % blocks)],
                   context.loading ? BasicTensor<T>{} : weights[static_cast<std::size_t>(k)]);
      ++k;
    }
  }
  template <class Set>
  static void loop(const Config& config, Set& set, const std::string& name,
                   const std::map<Index, BasicNormSite<T>*>& depths) {
    std::vector<BasicTensor<T>> weights, biases;
    for (const auto& [depth, site] : depths) {
      if (site->norm().weight) weights.push_back(site->norm().weight);
      if (site->norm().bias) biases.push_back(site->norm().bias);
    }
    const Index count = static_cast<Index>(depths.size()), blocks = config.blocks(count);
    std::vector<std::shared_ptr<NormPart<T>>> parts;
    for (Index j = 0; j < blocks; ++j) {
      auto norm = depths.begin()->second->norm();
      if (!weights.empty()) norm.weight = recursive_block(weights, j, blocks, config.init);
      if (!biases.empty()) norm.bias = recursive_block(biases, j, blocks, config.init);
      parts.push_back(
          norm_part(RecursiveNorm<T>(concat("shared.", j, ".", name), norm, config.train_shared)));
    }
    Index k = 0;
    for (const auto& [depth, site] : depths) {
      const auto& part = parts[static_cast<std::size_t>(k++ % blocks)];
      site->adapters().push_back({set.name(), part});
      set.add_part(site->path(), part);
    }
  }
};

}  // namespace graft::inline v0_1
