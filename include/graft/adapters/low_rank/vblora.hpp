#pragma once

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/topk_mixture.hpp"

namespace graft::inline v0_1 {

/// Configuration of VB-LoRA, fields as PEFT's VBLoRAConfig.
struct VBLoRAConfig {
  Index rank = 4;
  Index num_vectors = 256;              ///< rows of the bank
  Index vector_length = 256;            ///< columns of the bank; divides in and out of every layer
  Index topk = 2;                       ///< vectors that are mixed into one
  bool save_only_topk_weights = false;  ///< files hold the choice alone; good for inference only
  double dropout = 0;                   ///< on the input of the branch, while training
  double init_vector_bank_bound = 0.02;
  double init_logits_std = 0.1;
  bool fan_in_fan_out = false;
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "VBLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("num_vectors", num_vectors);
    v("vector_length", vector_length);
    v("topk", topk);
    v("save_only_topk_weights", save_only_topk_weights);
    v("vblora_dropout", dropout);
    v("init_vector_bank_bound", init_vector_bank_bound);
    v("init_logits_std", init_logits_std);
    v("fan_in_fan_out", fan_in_fan_out);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for sizes below one or more vectors in a mixture than there are.
  void validate() const {
    if (rank < 1 || num_vectors < 1 || vector_length < 1)
      throw ValueError(concat("VB-LoRA: rank ", rank, ", ", num_vectors, " vectors of length ",
                              vector_length, ", expected at least 1 each"));
    if (topk < 1 || topk > num_vectors)
      throw ValueError(concat("VB-LoRA: topk ", topk, ", expected 1 to ", num_vectors));
  }
};

/// VB-LoRA: y = base(x) + (drop(x) Aᵀ) Bᵀ, every length of ℓ elements of A's rows and B's columns a
/// mixture of vectors of one bank: Σ_t softmax(top-k logits)_t V_t.
///
/// V: [num_vectors, ℓ], shared by the model; logits of A: [rank, in / ℓ, num_vectors], of B: [out /
/// ℓ, rank, num_vectors]; trained: rank (in + out) / ℓ · num_vectors, and the bank once. Not the
/// identity at the start. Merges. Source: Li et al. 2024 (arXiv:2405.15179), eq. 2 and 3. Tensors:
/// vblora_logits_A, vblora_logits_B, base_model.vblora_vector_bank; with save_only_topk_weights
/// vblora_logits_A_topk_indices [.., k] and vblora_logits_A_topk_weights [.., k − 1] (the last
/// weight is what is missing to 1) in place of the logits: such a file cannot be trained further.
template <std::floating_point T>
class BasicVBLoRA {
 public:
  using Scalar = T;
  using Config = VBLoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "VBLORA",
            .name = "VB-LoRA",
            .family = "low_rank",
            .paper = "arXiv:2405.15179",
            .sites = "linear",
            .parameters =
                "h r (in + out) / l, h = num_vectors, l = vector_length, once num_vectors "
                "vector_length",
            .identity_at_init = false};
  }

  /// @throws ValueError if the length of the vectors does not divide in and out.
  BasicVBLoRA(const VBLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_((config.validate(), config)), in_(site.in_features), out_(site.out_features) {
    const Index length = config.vector_length, h = config.num_vectors, r = config.rank;
    if (in_ % length != 0 || out_ % length != 0)
      throw ValueError(concat("VB-LoRA: vector_length ", length, " does not divide ", in_, " or ",
                              out_, " of ", site.path));
    bank_ = context.shared.get("vblora_vector_bank", [&] {
      auto bank = BasicTensor<T>::zeros({h, length});
      const double bound = config.init_vector_bank_bound;
      if (!context.loading) context.generator.uniform(bank.data(), bank.size(), -bound, bound);
      return bank;
    });
    const auto logits = [&](const Shape& shape) {
      return context.loading
                 ? BasicTensor<T>::zeros(shape)
                 : detail::normal_tensor<T>(context.generator, shape, config.init_logits_std);
    };
    a_ = BasicParameter<T>(logits({r, in_ / length, h}));
    b_ = BasicParameter<T>(logits({out_ / length, r, h}));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicVBLoRA(const VBLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicVBLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto bank = tape.parameter(bank_);
    const auto a =
        reshape(topk_mixture(tape.parameter(a_), bank, config_.topk), {config_.rank, in_});
    const auto b = reshape(transpose(topk_mixture(tape.parameter(b_), bank, config_.topk)),
                           {out_, config_.rank});
    return linear_low_rank(base, x, graft::dropout(x, config_.dropout), a, b, T{1});
  }

  std::vector<AdapterTensor<T>> tensors() const {
    if (!choice_.empty()) {  // of a file that is being read
      auto list = choice_;
      list.push_back(logits("vblora_logits_A", a_));
      list.push_back(logits("vblora_logits_B", b_));
      for (std::size_t i = list.size() - 2; i < list.size(); ++i) list[i].saved = false;
      list.push_back(bank());
      return list;
    }
    return {logits("vblora_logits_A", a_), logits("vblora_logits_B", b_), bank()};
  }
  std::vector<AdapterTensor<T>> file_tensors() const {
    if (!config_.save_only_topk_weights)
      return {logits("vblora_logits_A", a_), logits("vblora_logits_B", b_), bank()};
    auto list = choice_of("vblora_logits_A", a_.value());
    for (auto& t : choice_of("vblora_logits_B", b_.value())) list.push_back(std::move(t));
    list.push_back(bank());
    return list;
  }
  /// A file may hold the choice in place of the logits.
  void before_load(const CheckpointShapes& shapes) {
    choice_.clear();
    if (shapes("vblora_logits_A") != nullptr || shapes("vblora_logits_A_topk_indices") == nullptr)
      return;
    for (const bool first : {true, false})
      for (auto& t :
           choice_of(first ? "vblora_logits_A" : "vblora_logits_B", (first ? a_ : b_).value()))
        choice_.push_back(std::move(t));
  }
  /// Logits that give the weights of the file: their logarithms, −∞ elsewhere.
  void after_load() {
    if (choice_.empty()) return;
    for (const bool first : {true, false}) {
      const auto& index = choice_[first ? 0 : 2].index->values;
      const auto weights = choice_[first ? 1 : 3].parameter.value();
      const Index k = config_.topk, h = config_.num_vectors;
      auto logits =
          BasicTensor<T>::full((first ? a_ : b_).shape(), -std::numeric_limits<T>::infinity());
      for (Index row = 0; row < logits.rows(); ++row) {
        T rest = 1;
        for (Index t = 0; t < k; ++t) {
          const T w = t + 1 < k ? weights[row * (k - 1) + t] : rest;
          rest -= w;
          const auto at = index[static_cast<std::size_t>(row * k + t)];
          if (at < 0 || at >= h)
            throw ValueError(concat("VB-LoRA: index ", at, " of ", h, " vectors"));
          logits(row, at) = std::log(std::max(w, T{0}));
        }
      }
      (first ? a_ : b_).assign(std::move(logits));
    }
    choice_.clear();
  }

 private:
  static AdapterTensor<T> logits(const char* name, const BasicParameter<T>& p) {
    auto t = detail::named(name, p);
    t.group = "vblora_logits";
    return t;
  }
  AdapterTensor<T> bank() const {
    auto t = detail::named("vblora_vector_bank", bank_);
    t.group = "vblora_vector_bank";
    t.scope = AdapterTensor<T>::Scope::model;
    return t;
  }
  /// Indices of the chosen vectors and all weights but the last.
  std::vector<AdapterTensor<T>> choice_of(const std::string& name,
                                          const BasicTensor<T>& logits) const {
    const Index k = config_.topk, h = config_.num_vectors;
    auto index = std::make_shared<IndexTensor>();
    index->shape = logits.shape().with_last(k);
    index->type = h < 256     ? IndexTensor::Type::u8
                  : h < 32768 ? IndexTensor::Type::i16
                              : IndexTensor::Type::i32;
    auto weights = BasicTensor<T>::empty(logits.shape().with_last(k - 1));
    for (Index row = 0; row < logits.rows(); ++row) {
      const T* z = logits.data() + row * h;
      const auto top = largest(z, h, k);
      T total = 0;
      for (auto i : top) total += std::exp(z[i] - z[top[0]]);
      for (Index t = 0; t < k; ++t) {
        const auto i = top[static_cast<std::size_t>(t)];
        index->values.push_back(i);
        if (t + 1 < k) weights[row * (k - 1) + t] = std::exp(z[i] - z[top[0]]) / total;
      }
    }
    return {detail::named<T>(name + "_topk_indices", std::move(index)),
            detail::named(name + "_topk_weights", BasicParameter<T>(std::move(weights), false))};
  }

  VBLoRAConfig config_;
  Index in_, out_;
  BasicParameter<T> bank_, a_, b_;
  std::vector<AdapterTensor<T>> choice_;
};

using VBLoRA = BasicVBLoRA<float>;

}  // namespace graft::inline v0_1
