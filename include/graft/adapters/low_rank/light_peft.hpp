#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/adapters/procedure_state.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/base/order.hpp"

namespace graft::inline v0_1 {

/// Configuration of Light-PEFT over LoRA: the fields of LoRA, and what is estimated and removed.
struct LightPEFTConfig : LoRAConfig {
  double mask_l1_weight = 1e-4;
  double head_ratio = 1.0 / 3;    ///< of the heads of every layer that are removed
  double neuron_ratio = 1.0 / 3;  ///< of the neurons of all layers together
  double module_ratio = 0.75;     ///< of the LoRAs
  double rank_ratio = 0.5;        ///< of the ranks of those that are left
  double estimation = 0.1;        ///< share of the steps that estimate
  bool pruned = false;            ///< the estimation is over: masks are fixed

  static constexpr const char* kPeftType = "LIGHT_PEFT";

  template <class Visitor>
  void fields(Visitor& v) {
    LoRAConfig::fields(v);
    v("mask_l1_weight", mask_l1_weight);
    v("head_ratio", head_ratio);
    v("neuron_ratio", neuron_ratio);
    v("module_ratio", module_ratio);
    v("rank_ratio", rank_ratio);
    v("estimation", estimation);
    v("pruned", pruned);
  }
  /// @throws ValueError for a share outside of [0, 1) and for what LoRA refuses.
  void validate() const {
    LoRAConfig::validate();
    for (const double ratio : {head_ratio, neuron_ratio, module_ratio, rank_ratio, estimation})
      if (!(ratio >= 0 && ratio < 1))
        throw ValueError(concat("Light-PEFT: a ratio of ", ratio, ", expected [0, 1)"));
  }
};

/// What Light-PEFT measures and how it chooses; ties go to the smaller index.
namespace light_peft {

/// True for what stays when the ⌊ratio · n⌋ smallest |values| go.
template <class Values>
std::vector<char> kept(const Values& values, Index n, double ratio) {
  std::vector<double> magnitudes(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < magnitudes.size(); ++i)
    magnitudes[i] = std::abs(static_cast<double>(values[i]));
  const auto order = smallest_first(magnitudes);
  std::vector<char> stays(static_cast<std::size_t>(n), 1);
  const auto count = static_cast<Index>(std::floor(ratio * static_cast<double>(n)));
  for (Index i = 0; i < std::min(n, count); ++i)
    stays[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = 0;
  return stays;
}
/// The largest |value| of a row stays in any case.
template <std::floating_point T>
void keep_one(const BasicTensor<T>& row, std::vector<char>& stays) {
  if (row.size() == 0 || std::find(stays.begin(), stays.end(), char{1}) != stays.end()) return;
  Index best = 0;
  for (Index i = 1; i < row.size(); ++i)
    if (std::abs(row[i]) > std::abs(row[best])) best = i;
  stays[static_cast<std::size_t>(best)] = 1;
}
/// Heads of every layer, the share of each.
template <std::floating_point T>
std::vector<std::vector<char>> kept_heads(const std::vector<BasicTensor<T>>& masks, double ratio) {
  std::vector<std::vector<char>> all;
  for (const auto& m : masks) {
    all.push_back(kept(m.span(), m.size(), ratio));
    keep_one(m, all.back());
  }
  return all;
}
/// Neurons, the share of all layers together.
template <std::floating_point T>
std::vector<std::vector<char>> kept_neurons(const std::vector<BasicTensor<T>>& masks,
                                            double ratio) {
  std::vector<T> values;
  for (const auto& m : masks) values.insert(values.end(), m.begin(), m.end());
  const auto stays = kept(values, static_cast<Index>(values.size()), ratio);
  std::vector<std::vector<char>> all;
  auto at = stays.begin();
  for (const auto& m : masks) {
    all.emplace_back(at, at + m.size());
    at += m.size();
    keep_one(m, all.back());
  }
  return all;
}

/// |mean_j(A_kj ∂A_kj)| + |mean_i(B_ik ∂B_ik)| for each rank k. A: [r, in], B: [out, r].
template <std::floating_point T>
std::vector<double> rank_importance(const BasicTensor<T>& a, const BasicTensor<T>& grad_a,
                                    const BasicTensor<T>& b, const BasicTensor<T>& grad_b) {
  const Index r = a.rows(), in = a.cols(), out = b.rows();
  std::vector<double> importance;
  for (Index k = 0; k < r; ++k) {
    double of_a = 0, of_b = 0;
    for (Index j = 0; j < in; ++j)
      of_a += static_cast<double>(a(k, j)) * static_cast<double>(grad_a(k, j));
    for (Index i = 0; i < out; ++i)
      of_b += static_cast<double>(b(i, k)) * static_cast<double>(grad_b(i, k));
    importance.push_back(std::abs(of_a) / static_cast<double>(in) +
                         std::abs(of_b) / static_cast<double>(out));
  }
  return importance;
}
/// Mean of ‖Δh‖ / ‖h‖ over the tokens whose mask is not 0 (empty: all). delta, h: [tokens, width].
template <std::floating_point T>
double module_importance(const BasicTensor<T>& delta, const BasicTensor<T>& h,
                         const std::vector<unsigned char>& mask) {
  const Index rows = h.rows(), width = h.cols();
  double total = 0;
  Index tokens = 0;
  for (Index t = 0; t < rows; ++t) {
    if (static_cast<Index>(mask.size()) == rows && mask[static_cast<std::size_t>(t)] == 0) continue;
    double of_delta = 0, of_h = 0;
    for (Index j = 0; j < width; ++j) {
      const double d = static_cast<double>(delta[t * width + j]),
                   v = static_cast<double>(h[t * width + j]);
      of_delta += d * d;
      of_h += v * v;
    }
    total += of_h > 0 ? std::sqrt(of_delta / of_h) : 0;
    ++tokens;
  }
  return tokens > 0 ? total / static_cast<double>(tokens) : 0;
}
/// Means over the steps; the second half of them alone, or all. steps[t]: values of step t.
inline std::vector<double> averaged(const std::vector<std::vector<double>>& steps,
                                    bool second_half) {
  if (steps.empty()) return {};
  const std::size_t first = second_half ? steps.size() / 2 : 0;
  std::vector<double> mean(steps[0].size(), 0.0);
  for (std::size_t t = first; t < steps.size(); ++t)
    for (std::size_t i = 0; i < mean.size(); ++i)
      mean[i] += steps[t][i] / static_cast<double>(steps.size() - first);
  return mean;
}
/// The ranks that stay in each module: none where the module is removed. ranks[m]: importance of
/// the ranks of module m.
inline std::vector<std::vector<char>> kept_ranks(const std::vector<double>& modules,
                                                 const std::vector<std::vector<double>>& ranks,
                                                 double module_ratio, double rank_ratio) {
  const auto stays = kept(modules, static_cast<Index>(modules.size()), module_ratio);
  std::vector<double> values;
  for (std::size_t m = 0; m < ranks.size(); ++m)
    if (stays[m] != 0) values.insert(values.end(), ranks[m].begin(), ranks[m].end());
  const auto left = kept(values, static_cast<Index>(values.size()), rank_ratio);
  std::vector<std::vector<char>> all;
  auto at = left.begin();
  for (std::size_t m = 0; m < ranks.size(); ++m) {
    const auto r = static_cast<std::ptrdiff_t>(ranks[m].size());
    if (stays[m] == 0) {
      all.emplace_back(ranks[m].size(), char{0});
      continue;
    }
    all.emplace_back(at, at + r);
    at += r;
  }
  return all;
}

}  // namespace light_peft

/// Masks of one block, [heads] on the attention probabilities and [neurons] on the inner activation
/// of the feed-forward part, with their L1 norm in the loss while they are trained.
template <std::floating_point T>
class BasicLightMasks final : public AdapterPart<T> {
 public:
  using Scalar = T;
  BasicLightMasks(Index heads, Index neurons, double l1)
      : heads_(BasicTensor<T>::full({heads}, 1)),
        neurons_(BasicTensor<T>::full({neurons}, 1)),
        l1_(static_cast<T>(l1)) {}
  std::vector<AdapterTensor<T>> tensors() const override {
    return {detail::named("head_mask", heads_), detail::named("neuron_mask", neurons_)};
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const override {
    if (!heads_.trainable() || l1_ == T{0}) return {};
    return scale(add(sum(abs(tape.parameter(heads_))), sum(abs(tape.parameter(neurons_)))), l1_);
  }
  const BasicParameter<T>& heads() const { return heads_; }
  const BasicParameter<T>& neurons() const { return neurons_; }
  /// Each head times its mask: P_h ← m_h P_h. x: [tokens, heads · width].
  static BasicVar<T> mask_heads(const BasicVar<T>& x, const BasicParameter<T>& mask) {
    const Index heads = mask.size();
    const auto m = reshape(x.tape().parameter(mask), {1, heads, 1});
    return reshape(mul(reshape(x, {x.rows(), heads, x.cols() / heads}), m), x.shape());
  }
  /// x ⊙ m. x: [tokens, neurons].
  static BasicVar<T> mask_neurons(const BasicVar<T>& x, const BasicParameter<T>& mask) {
    return mul(x, x.tape().parameter(mask));
  }
  void fix(const std::vector<char>& heads, const std::vector<char>& neurons) {
    const auto put = [](const BasicParameter<T>& mask, const std::vector<char>& kept) {
      auto value = BasicTensor<T>::zeros(mask.shape());
      for (std::size_t i = 0; i < kept.size(); ++i)
        value[static_cast<Index>(i)] = kept[i] != 0 ? T{1} : T{0};
      mask.assign(std::move(value));
    };
    put(heads_, heads);
    put(neurons_, neurons);
    freeze();
  }
  void freeze() {
    heads_.set_trainable(false);
    neurons_.set_trainable(false);
  }

 private:
  BasicParameter<T> heads_, neurons_;
  T l1_;
};

template <std::floating_point T>
class BasicMaskedHeads final : public AttentionPart<T> {
 public:
  explicit BasicMaskedHeads(BasicParameter<T> mask) : mask_(std::move(mask)) {}
  BasicVar<T> after(const AttentionCall<T>&, BasicVar<T> out) const override {
    return BasicLightMasks<T>::mask_heads(out, mask_);
  }
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }

 private:
  BasicParameter<T> mask_;
};

/// The last layer of a feed-forward part, its inputs masked.
template <std::floating_point T>
class BasicMaskedNeurons {
 public:
  using Scalar = T;
  explicit BasicMaskedNeurons(BasicParameter<T> mask) : mask_(std::move(mask)) {}
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return linear(base, BasicLightMasks<T>::mask_neurons(x, mask_));
  }
  std::vector<AdapterTensor<T>> tensors() const { return {}; }

 private:
  BasicParameter<T> mask_;
};

/// LoRA whose weight in the model is measured, and whose ranks can be taken away.
template <std::floating_point T>
class BasicLightLoRA {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  BasicLightLoRA(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : lora_(config, site, context) {
    if (!site.conv.kernel.empty() || !site.expert.parameter.empty())
      throw ValueError(
          concat("Light-PEFT at ", site.path, ", a convolution or an expert, is not supported"));
    if (!config.variants().empty() || config.lora_bias)
      throw ValueError("Light-PEFT: variants of LoRA and lora_bias are not supported");
  }
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    if (lora_.a().size() == 0) return linear(base, x);
    const auto y = lora_.apply(base, x);
    if (!measured_ || !y.requires_grad()) return y;
    const auto h = linear(base, x).value();
    auto delta = y.value().clone();
    for (Index i = 0; i < delta.size(); ++i) delta[i] -= h[i];
    const auto* context = x.tape().template context<ForwardContext>();
    measured_(light_peft::module_importance(
        delta, h, context != nullptr ? context->token_mask : std::vector<unsigned char>{}));
    return y;
  }
  std::vector<AdapterTensor<T>> tensors() const { return lora_.tensors(); }
  /// A file may hold fewer ranks.
  void before_load(const CheckpointShapes& shapes) {
    const Shape* a = shapes("lora_A.weight");
    const Shape* b = shapes("lora_B.weight");
    if (a == nullptr || b == nullptr || a->rank() != 2 || b->rank() != 2) return;
    if ((*a)[0] > lora_.rank() || (*a)[0] != (*b)[1] || *a == lora_.a().shape()) return;
    lora_.a().assign(BasicTensor<T>::zeros(*a));
    lora_.b().assign(BasicTensor<T>::zeros(*b));
  }
  void keep(const std::vector<char>& ranks) {
    const auto& a = lora_.a().value();
    const auto& b = lora_.b().value();
    const Index r = a.rows(), in = a.cols(), out = b.rows(),
                left = std::count(ranks.begin(), ranks.end(), char{1});
    auto new_a = BasicTensor<T>::empty({left, in}), new_b = BasicTensor<T>::empty({out, left});
    Index to = 0;
    for (Index k = 0; k < r; ++k) {
      if (ranks[static_cast<std::size_t>(k)] == 0) continue;
      std::copy_n(a.data() + k * in, in, new_a.data() + to * in);
      for (Index i = 0; i < out; ++i) new_b[i * left + to] = b[i * r + k];
      ++to;
    }
    lora_.a().assign(std::move(new_a));
    lora_.b().assign(std::move(new_b));
  }
  std::string merge_reason() const { return "the masks of Light-PEFT stay beside the weights"; }
  const BasicLoRA<T>& lora() const { return lora_; }
  /// Told the importance of the module in every forward pass that records gradients.
  void measure(std::function<void(double)> measured) { measured_ = std::move(measured); }

 private:
  BasicLoRA<T> lora_;
  std::function<void(double)> measured_;
};

/// Light-PEFT in training: the estimation, the removal, and then nothing more.
template <std::floating_point T>
class LightPEFTProcedure final : public Procedure<T> {
 public:
  LightPEFTProcedure(const LightPEFTConfig& config, const std::vector<PlacedPart<T>>& parts)
      : config_(config), loras_(methods_of<BasicLightLoRA<T>>(parts)), pruned_(config.pruned) {
    for (const auto& placed : parts)
      if (auto* masks = dynamic_cast<BasicLightMasks<T>*>(placed.part.get()))
        masks_.push_back(masks);
  }
  Index estimation_steps(Index total) const {
    return static_cast<Index>(std::ceil(config_.estimation * static_cast<double>(total)));
  }
  void before_step(const StepInfo& info) override {
    if (pruned_) return;
    if (info.step > estimation_steps(info.total_steps)) return prune();
    now_.assign(loras_.size(), 0);
    passes_.assign(loras_.size(), 0);
    for (std::size_t i = 0; i < loras_.size(); ++i)
      loras_[i]->measure([this, i](double importance) {
        now_[i] += importance;
        ++passes_[i];
      });
  }
  void after_backward(const StepInfo&) override {
    if (pruned_) return;
    std::vector<double> of_modules, of_ranks;
    for (std::size_t i = 0; i < loras_.size(); ++i) {
      loras_[i]->measure({});
      of_modules.push_back(now_[i] / std::max(1.0, passes_[i]));
      const auto &a = loras_[i]->lora().a(), &b = loras_[i]->lora().b();
      std::vector<double> ranks(static_cast<std::size_t>(a.shape()[0]), 0.0);
      if (a.grad() && b.grad())
        ranks = light_peft::rank_importance(a.value(), a.grad(), b.value(), b.grad());
      of_ranks.insert(of_ranks.end(), ranks.begin(), ranks.end());
    }
    modules_.push_back(std::move(of_modules));
    ranks_.push_back(std::move(of_ranks));
  }
  /// Removes by what was estimated so far.
  void prune() {
    std::vector<BasicTensor<T>> heads, neurons;
    for (const auto* m : masks_) {
      heads.push_back(m->heads().value());
      neurons.push_back(m->neurons().value());
    }
    const auto kept_heads = light_peft::kept_heads(heads, config_.head_ratio);
    const auto kept_neurons = light_peft::kept_neurons(neurons, config_.neuron_ratio);
    for (std::size_t i = 0; i < masks_.size(); ++i) masks_[i]->fix(kept_heads[i], kept_neurons[i]);
    if (!modules_.empty()) {
      const auto flat = light_peft::averaged(ranks_, false);
      std::vector<std::vector<double>> ranks;
      auto at = flat.begin();
      for (const auto* lora : loras_) {
        const auto r = static_cast<std::ptrdiff_t>(lora->lora().a().shape()[0]);
        ranks.emplace_back(at, at + r);
        at += r;
      }
      const auto kept = light_peft::kept_ranks(light_peft::averaged(modules_, true), ranks,
                                               config_.module_ratio, config_.rank_ratio);
      for (std::size_t i = 0; i < loras_.size(); ++i) loras_[i]->keep(kept[i]);
    }
    pruned_ = true;
    modules_.clear();
    ranks_.clear();
  }
  void update_config(ConfigValue::Map& map) const override { map["pruned"] = pruned_; }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    all["pruned"] = {pruned_ ? 1.0 : 0.0};
    for (std::size_t t = 0; t < modules_.size(); ++t) {
      all["modules." + std::to_string(t)] = modules_[t];
      all["ranks." + std::to_string(t)] = ranks_[t];
    }
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    pruned_ = detail::kept_number(all, "pruned", config_.pruned ? 1 : 0) != 0;
    modules_.clear();
    ranks_.clear();
    for (std::size_t t = 0;; ++t) {
      const auto m = all.find("modules." + std::to_string(t)),
                 r = all.find("ranks." + std::to_string(t));
      if (m == all.end() || r == all.end()) break;
      modules_.push_back(m->second);
      ranks_.push_back(r->second);
    }
    if (pruned_)
      for (auto* m : masks_) m->freeze();
  }

 private:
  LightPEFTConfig config_;
  std::vector<BasicLightLoRA<T>*> loras_;
  std::vector<BasicLightMasks<T>*> masks_;
  bool pruned_;
  std::vector<double> now_, passes_;
  std::vector<std::vector<double>> modules_, ranks_;  ///< of each step of the estimation
};

/// Light-PEFT: in a short estimation LoRA learns together with masks m on the heads of every
/// attention (P_h ← m_h softmax(…)) and on the neurons of every feed-forward part (a ← m ⊙ act(…)),
/// with λ Σ|m| in the loss; then the heads and neurons with the smallest |m|, the LoRAs whose part
/// of the output is smallest and the least important of the ranks that are left are removed, and
/// the rest is trained.
///
/// Trained: r (in + out) a site and heads + neurons a block in the estimation; afterwards
/// Σ r_m (in + out) over the LoRAs that are left. The identity at the start (m = 1); does not
/// merge. Source: Gu et al. 2024 (arXiv:2406.03792), section 3. Deviations: what is removed from
/// the frozen model is masked with zeros, the same function, its weights stay in memory; the masks
/// of what is kept become 1. Models with one stack of blocks; the last linear layer of a block is
/// taken for that of its feed-forward part. Tensors: lora_A.weight, lora_B.weight; head_mask
/// [heads] and neuron_mask [neurons] of each block.
template <std::floating_point T>
struct LightPEFTMethod {
  using Scalar = T;
  using Config = LightPEFTConfig;
  static MethodInfo info() {
    return {.peft_type = "LIGHT_PEFT",
            .name = "Light-PEFT",
            .family = "low_rank",
            .paper = "arXiv:2406.03792",
            .sites = "linear, attention",
            .parameters = "; r (in + out), heads + neurons a block until the removal",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicLightLoRA<T>(config, site, context));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table, InitContext<T>&) {
    if (set.parts().empty()) return;
    std::vector<std::string> blocks;
    for (const auto* site : table.hidden)
      if (site->role() == HiddenRole::block) blocks.push_back(site->path());
    if (table.info.encoder_decoder || blocks.size() != table.attention.size())
      throw ValueError(concat("Light-PEFT: ", table.info.architecture,
                              " does not have one stack of blocks with an attention each"));
    const auto place = [&](auto* site, auto part) {
      site->adapters().push_back({set.name(), part});
      set.add_part(site->path(), part);
    };
    for (auto* attention : table.attention) {
      BasicLinearSite<T>* last = nullptr;
      for (auto* site : table.linear)
        if (layer_of(site->path()) == attention->layer) last = site;
      if (last == nullptr || !last->expert.parameter.empty())
        throw ValueError(
            concat("Light-PEFT: block ", attention->layer, " has no plain feed-forward part"));
      auto masks = std::make_shared<BasicLightMasks<T>>(attention->heads, last->in_features(),
                                                        config.mask_l1_weight);
      if (config.pruned) masks->freeze();
      set.add_part(blocks[static_cast<std::size_t>(attention->layer)], masks);
      place(attention, std::make_shared<BasicMaskedHeads<T>>(masks->heads()));
      place(last, linear_part(BasicMaskedNeurons<T>(masks->neurons())));
    }
    set.set_procedure(std::make_unique<LightPEFTProcedure<T>>(config, set.parts()));
  }
};

}  // namespace graft::inline v0_1
