#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/memory/side_stack.hpp"

namespace graft::inline v0_1 {

/// Configuration of quantised side tuning.
struct QSTConfig {
  Index reduction_factor = 16;
  Index downsample_rank = 16;  ///< p
  /// low_rank, linear, max_pool or avg_pool: how the side network reads a state.
  std::string downsample = "low_rank";
  double dropout = 0;  ///< of what the side network reads

  static constexpr const char* kPeftType = "QST";

  template <class Visitor>
  void fields(Visitor& v) {
    v("reduction_factor", reduction_factor);
    v("downsample_rank", downsample_rank);
    v("downsample", downsample);
    v("dropout", dropout);
  }
  /// @throws ValueError for sizes below one or an unknown way to read
  void validate() const {
    if (reduction_factor < 1 || downsample_rank < 1)
      throw ValueError(concat("QST: reduction_factor ", reduction_factor, ", downsample_rank ",
                              downsample_rank));
    if (downsample != "low_rank" && downsample != "linear" && downsample != "max_pool" &&
        downsample != "avg_pool")
      throw ValueError(concat("QST: downsample '", downsample,
                              "', expected low_rank, linear, max_pool or avg_pool"));
  }
};

/// The side network of QST on one model.
template <std::floating_point T>
class QSTStack final : public detail::SideStack<T> {
 public:
  QSTStack(const QSTConfig& config, const std::string& name, const BasicSiteTable<T>& table,
           InitContext<T>& context)
      : detail::SideStack<T>("QST", "qst.", name, config.reduction_factor, {}, table, context),
        config_(config) {
    const Index d = table.info.hidden_size, s = this->width(), p = config.downsample_rank;
    for (Index l = 0; l < this->side_blocks(); ++l) {
      const auto path = concat("downsample.", l, ".");
      Reader r;
      if (config.downsample == "low_rank") {
        r.a = this->put(path + "A.weight", detail::linear_default(context, {p, d}, d));
        r.b = this->put(path + "B.weight", detail::linear_default(context, {s, p}, p));
      } else if (config.downsample == "linear") {
        r.a = this->put(path + "weight", detail::linear_default(context, {s, d}, d));
      }
      if (r.a) {
        r.weight = this->put(path + "norm.weight", detail::constant<T>({s}, 1));
        r.bias = this->put(path + "norm.bias", detail::constant<T>({s}, 0));
      }
      readers_.push_back(r);
      mix_.push_back(this->put(concat("mix.", l), detail::constant<T>({s}, 0.5)));
    }
    up_ = this->put("upsample.weight", detail::linear_default(context, {d, s}, s));
    up_bias_ = this->put("upsample.bias", detail::linear_default(context, {d}, s));
    mix_final_ = this->put("mix_final", detail::constant<T>({d}, 1));
  }

 private:
  /// Matrices of one state; empty where windows of it are pooled.
  struct Reader {
    BasicParameter<T> a, b, weight, bias;
  };

  BasicVar<T> read(std::size_t l, const BasicVar<T>& state) const {
    const auto h = dropout(state, config_.dropout);
    const auto& r = readers_[l];
    auto& tape = h.tape();
    if (!r.a) {
      const Index width = this->width(), window = h.cols() / width;
      const auto windows = reshape(h, {h.rows(), width, window});
      if (config_.downsample == "avg_pool") return mean_axis(windows, -1);
      // The state has no gradient, so neither has its maximum.
      auto y = BasicTensor<T>::empty({h.rows(), width});
      for (Index i = 0; i < y.size(); ++i)
        y[i] =
            *std::max_element(h.value().data() + i * window, h.value().data() + (i + 1) * window);
      return tape.constant(y);
    }
    auto y = matmul(h, tape.parameter(r.a), Transpose::no, Transpose::yes);
    if (r.b) y = matmul(silu(y), tape.parameter(r.b), Transpose::no, Transpose::yes);
    return layer_norm(y, tape.parameter(r.weight), tape.parameter(r.bias), static_cast<T>(1e-5));
  }
  BasicVar<T> first(const BasicVar<T>& h) const override { return read(0, h); }
  BasicVar<T> mix(Index l, const BasicVar<T>& s, const BasicVar<T>& h) const override {
    const auto i = static_cast<std::size_t>(l);
    const auto own = read(i, h);
    return add(own, mul(sub(s, own), sigmoid(s.tape().parameter(mix_[i]))));
  }
  BasicVar<T> mixed(const BasicVar<T>& s, const BasicVar<T>& x) const override {
    const auto own = affine(s, up_, up_bias_);
    return add(own, mul(sub(x, own), sigmoid(s.tape().parameter(mix_final_))));
  }

  QSTConfig config_;
  std::vector<Reader> readers_;
  std::vector<BasicParameter<T>> mix_;
  BasicParameter<T> up_, up_bias_, mix_final_;
};

/// Quantised side tuning: a narrow stack of blocks beside a frozen model, quantised or not, whose
/// result is mixed with the model's own before the head.
///
///     D_l(h) = LN(swish(h A_lᵀ) B_lᵀ),  s = D_1(h_0);  z_l = σ(β_l)
///     s ← SideBlock_l((1 − z_l) ⊙ D_l(h_l) + z_l ⊙ s),  l = 1 … L
///     h_out = (1 − z) ⊙ (norm(s) Uᵀ + u) + z ⊙ h,  z = σ(β), h the model's last hidden state
///
/// h_0: input of the first block, h_l: output of block l, read without a gradient: nothing of the
/// model is kept for the backward pass. A_l: [p, d], B_l: [d/r, p], LayerNorm with eps 1e-5, β_l:
/// [d/r], 0.5, U: [d, d/r], β: [d], 1; `linear` reads with one matrix [d/r, d] and the LayerNorm,
/// the pools with none. Side blocks as in LST. Trained: L (p d + p d/r + 3 d/r) + d (d/r + 2), the
/// side blocks and their norm. Not the identity, cannot be merged. Generates from a cache of its
/// own, one text at a time. Models: BERT- and LLaMA-like ones. Source: Zhang et al. 2024
/// (arXiv:2401.07159). Deviation: side blocks begin as parts of the model's own, not at random.
/// Tensors: shared.qst.{downsample.l.{A, B, norm}, mix.l, layer(s).l.…, norm, upsample, mix_final}.
template <std::floating_point T>
struct QSTMethod {
  using Scalar = T;
  using Config = QSTConfig;

  static Config example() { return {.reduction_factor = 2, .downsample_rank = 4}; }
  static MethodInfo info() {
    return {.peft_type = "QST",
            .name = "QST",
            .family = "memory",
            .paper = "arXiv:2401.07159",
            .sites = "blocks",
            .parameters = "; L (p d + p d/r + 3 d/r) + d (d/r + 2), the side blocks and their norm",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    config.validate();
    detail::add_side_stack<T>(std::make_shared<QSTStack<T>>(config, set.name(), table, context),
                              set, table);
  }
};

}  // namespace graft::inline v0_1
