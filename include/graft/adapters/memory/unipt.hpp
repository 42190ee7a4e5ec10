#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/memory/state_readers.hpp"

namespace graft::inline v0_1 {

/// Configuration of UniPT.
struct UniPTConfig {
  Index mapping_size = 384;  ///< d'
  Index embed_size = 768;    ///< of the output
  Index num_states = 13;     ///< hidden states that are read, the last one the anchor

  static constexpr const char* kPeftType = "UNIPT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("mapping_size", mapping_size);
    v("embed_size", embed_size);
    v("num_states", num_states);
  }
  /// @throws ValueError for sizes below one or fewer than two states.
  void validate() const {
    if (mapping_size < 1 || embed_size < 1 || num_states < 2)
      throw ValueError(concat("UniPT: mapping_size ", mapping_size, ", embed_size ", embed_size,
                              " and num_states ", num_states, " (at least 2)"));
  }
};

/// UniPT: a small network beside a frozen model that reads all of its hidden states.
///
///     g_i = LN(h_i P_iᵀ + p_i), a = g_L
///     C_i = ReLU(a g_iᵀ) ⊙ v, each row over its sum (+ 1e-8), plus 1; m_i = C_i g_i, i < L
///     c = softmax_i((ā ⊙ ḡ_i) wᵀ + w₀), means over the tokens that v marks
///     y = ReLU(a + LN((Σ c_i m_i) Qᵀ + q)) Uᵀ + u
///
/// h_i: [batch, tokens, width], L + 1 = num_states of them; v: [batch · tokens], 1 = a real token,
/// empty: all are; y: [batch, tokens, embed_size]. Trained: (L + 1) d' (width + 3) + d' (d' + 3) +
/// d' + 1 + embed_size (d' + 1). The hidden states are read without a gradient: nothing of the
/// frozen model is kept. For one's own training code (the states of any network); not the identity,
/// cannot be merged. Source: Diao et al. 2024 (arXiv:2308.14316), §3. Tensors:
/// shared.unipt.{down, down_norm}.i, projection, projection_norm, up, gate.
template <std::floating_point T>
class BasicUniPT {
 public:
  using Scalar = T;
  using Config = UniPTConfig;

  BasicUniPT(const UniPTConfig& config, Index width, InitContext<T>& context)
      : readers_((config.validate(), config.num_states), config.mapping_size, width, context) {
    const Index d = config.mapping_size;
    projection_ = detail::linear_default(context, {d, d}, d);
    projection_bias_ = detail::linear_default(context, {d}, d);
    norm_weight_ = detail::constant<T>({d}, 1);
    norm_bias_ = detail::constant<T>({d}, 0);
    up_ = detail::linear_default(context, {config.embed_size, d}, d);
    up_bias_ = detail::linear_default(context, {config.embed_size}, d);
    gate_ = detail::linear_default(context, {1, d}, d);
    gate_bias_ = detail::linear_default(context, {1}, d);
  }

  /// What the network makes of the states, and the weights c, [batch, L].
  struct Output {
    BasicVar<T> y, confidence;
  };
  /// @throws ValueError for another number of states, ShapeError for shapes that do not fit.
  Output operator()(std::vector<BasicVar<T>> states,
                    const std::vector<unsigned char>& mask = {}) const {
    for (auto& h : states) {
      if (h.shape().rank() != 3 || h.shape() != states[0].shape())
        throw ShapeError(concat("UniPT: hidden state ", h.shape().text(),
                                ", expected [batch, tokens, width] like the others"));
      h = h.detach();
    }
    const auto read = readers_("UniPT", states);
    auto& tape = read[0].tape();
    const Index batch = read[0].dim(0), tokens = read[0].dim(1);
    auto visible = BasicTensor<T>::ones({batch, 1, tokens}),
         share = BasicTensor<T>::empty({batch, tokens, 1});
    if (!mask.empty() && std::ssize(mask) != batch * tokens)
      throw ShapeError(
          concat("UniPT: mask of ", mask.size(), " for ", batch, " x ", tokens, " tokens"));
    for (Index b = 0; b < batch; ++b) {
      Index count = 0;
      for (Index t = 0; t < tokens; ++t) {
        const Index i = b * tokens + t;
        visible[i] = mask.empty() || mask[static_cast<std::size_t>(i)] != 0 ? 1 : 0;
        count += visible[i] != 0 ? 1 : 0;
      }
      for (Index t = 0; t < tokens; ++t)
        share[b * tokens + t] = visible[b * tokens + t] / static_cast<T>(std::max<Index>(1, count));
    }
    const auto masked_mean = [&](const BasicVar<T>& g) {  // [batch, d']
      return sum_axis(mul(g, tape.constant(share)), 1);
    };
    const auto& anchor = read.back();
    const auto pooled = masked_mean(anchor);
    std::vector<BasicVar<T>> scores, mixed;
    for (std::size_t i = 0; i + 1 < read.size(); ++i) {
      const auto c =
          mul(relu(matmul(anchor, read[i], Transpose::no, Transpose::yes)), tape.constant(visible));
      const auto row = div(c, add_scalar(sum_axis(c, -1, true), static_cast<T>(1e-8)));
      mixed.push_back(add(matmul(row, read[i]), read[i]));
      scores.push_back(
          detail::trained_linear(mul(pooled, masked_mean(read[i])), gate_, gate_bias_));
    }
    const auto confidence = softmax(concat_along(1, scores));
    BasicVar<T> sum;
    for (std::size_t i = 0; i < mixed.size(); ++i) {
      const auto weight = reshape(slice(confidence, 1, static_cast<Index>(i), 1), {batch, 1, 1});
      const auto term = mul(mixed[i], weight);
      sum = sum ? add(sum, term) : term;
    }
    const auto o = add(anchor, detail::StateReaders<T>::norm(
                                   detail::trained_linear(sum, projection_, projection_bias_),
                                   norm_weight_, norm_bias_, static_cast<T>(1e-5)));
    return {detail::trained_linear(relu(o), up_, up_bias_), confidence};
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    readers_.list("unipt", list);
    const std::pair<const char*, const BasicParameter<T>*> rest[] = {
        {"projection.weight", &projection_},
        {"projection.bias", &projection_bias_},
        {"projection_norm.weight", &norm_weight_},
        {"projection_norm.bias", &norm_bias_},
        {"up.weight", &up_},
        {"up.bias", &up_bias_},
        {"gate.weight", &gate_},
        {"gate.bias", &gate_bias_}};
    for (const auto& [name, parameter] : rest)
      list.push_back(detail::shared_tensor(concat("unipt.", name), *parameter));
    return list;
  }

 private:
  detail::StateReaders<T> readers_;
  BasicParameter<T> projection_, projection_bias_, norm_weight_, norm_bias_, up_, up_bias_, gate_,
      gate_bias_;
};

using UniPT = BasicUniPT<float>;

}  // namespace graft::inline v0_1
