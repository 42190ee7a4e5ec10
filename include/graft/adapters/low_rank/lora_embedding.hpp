#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/adapters/low_rank/lora_init.hpp"
#include "graft/adapters/part.hpp"
#include "graft/autograd/low_rank_term.hpp"
#include "graft/autograd/ops/gather_columns.hpp"

namespace graft::inline v0_1 {

/// An output layer that runs on the rows of an embedding with LoRA: y = base(x) + s · (x B) A, the
/// same update of the same rows (`ensure_weight_tying`). PEFT stores both factors a second time and
/// steps each twice, by the gradients of the two layers in turn; here they have the sum of both.
template <std::floating_point T>
class LoRATiedHead final : public LinearPart<T> {
 public:
  LoRATiedHead(BasicParameter<T> a, BasicParameter<T> b, T scaling, double dropout)
      : a_(std::move(a)), b_(std::move(b)), scaling_(scaling), dropout_(dropout) {}
  BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const override {
    auto& tape = x.tape();
    const auto h = matmul(graft::dropout(x, dropout_), tape.parameter(b_));
    return add(base(x), scale(matmul(h, tape.parameter(a_)), scaling_));
  }
  /// Those of the embedding.
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }

 private:
  BasicParameter<T> a_, b_;
  T scaling_;
  double dropout_;
};

/// LoRA on an embedding: y = E[ids] + s · A[:, ids]ᵀ Bᵀ, s = alpha / rank.
///
/// A: [rank, vocabulary], B: [dim, rank]; trained: rank · (vocabulary + dim). A = 0 and B ~ N(0, 1)
/// at the start; the init "mica" trains A alone. Dropout does not apply (PEFT stores it and ignores
/// it). The column of the padding id takes part in the value but gets no gradient, as in PEFT.
/// Source: Hu et al. 2021, applied to the one-hot input. Tensors: lora_embedding_A,
/// lora_embedding_B.
template <std::floating_point T>
class BasicLoRAEmbedding {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  BasicLoRAEmbedding(const LoRAConfig& config, const EmbeddingSiteInfo<T>& site,
                     InitContext<T>& context)
      : scaling_(static_cast<T>(config.scaling())),
        padding_(site.padding_index),
        head_dropout_(config.dropout) {
    config.validate();
    if (config.lora_bias)
      throw ValueError(concat("LoRA: lora_bias does not exist on the embedding ", site.path));
    const Index r = config.rank;
    auto a = BasicTensor<T>::zeros({r, site.vocabulary}), b = BasicTensor<T>::zeros({site.dim, r});
    if (!context.loading) {
      const auto* flag = config.init_lora_weights.template get_if<bool>();
      const auto* word = config.init_lora_weights.template get_if<std::string>();
      if (word != nullptr && *word == "mica") {
        const auto d = svd(site.table());
        const Index limit = d.s.size();
        if (r > limit)
          throw ValueError(
              concat("LoRA: init 'mica' of ", site.path, " needs a rank of at most ", limit));
        for (Index o = 0; o < site.dim; ++o)
          for (Index k = 0; k < r; ++k) b(o, k) = d.v(o, limit - r + k);
      } else {
        // As PEFT draws: both factors, and B once more unless the values stay random.
        auto& rng = context.generator;
        rng.normal(a.data(), a.size());
        rng.normal(b.data(), b.size());
        if (flag == nullptr || *flag) {
          a = BasicTensor<T>::zeros({r, site.vocabulary});
          rng.normal(b.data(), b.size());
        }
      }
    }
    a_ = BasicParameter<T>(a);
    b_ = BasicParameter<T>(b, config.trains_b());
  }

  BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const {
    return add(base(tape, ids), delta(tape, ids));
  }
  /// s · A[:, ids]ᵀ Bᵀ, [ids, dim].
  BasicVar<T> delta(BasicTape<T>& tape, std::span<const std::int32_t> ids) const {
    const auto h = gather_columns(tape.parameter(a_), ids, padding_);
    return scale(matmul(h, tape.parameter(b_), Transpose::no, Transpose::yes), scaling_);
  }
  std::shared_ptr<LinearPart<T>> head_if_asked() const {
    return std::make_shared<LoRATiedHead<T>>(a_, b_, scaling_, head_dropout_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0] = {.name = "lora_embedding_A", .parameter = a_, .index = {}, .file_shape = {}};
    list[1] = {.name = "lora_embedding_B", .parameter = b_, .index = {}, .file_shape = {}};
    return list;
  }
  const BasicParameter<T>& a() const { return a_; }
  const BasicParameter<T>& b() const { return b_; }
  T scaling() const { return scaling_; }
  /// A [rank, rows] and B [dim, rank] of the update.
  std::optional<LowRankTerm<T>> low_rank_term() const {
    return LowRankTerm<T>{a_, b_, scaling_, 0};
  }

 private:
  T scaling_;
  Index padding_;
  double head_dropout_;
  BasicParameter<T> a_;
  BasicParameter<T> b_;
};

}  // namespace graft::inline v0_1
