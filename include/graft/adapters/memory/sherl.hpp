#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/memory/state_readers.hpp"

namespace graft::inline v0_1 {

/// Configuration of SHERL.
struct SHERLConfig {
  Index mapping_size = 512;  ///< d'
  Index num_states = 12;     ///< hidden states that are read, the last one the guide
  double gate_temperature = 0.1;
  double dropout = 0;  ///< the paper: 0.1

  static constexpr const char* kPeftType = "SHERL";

  template <class Visitor>
  void fields(Visitor& v) {
    v("mapping_size", mapping_size);
    v("num_states", num_states);
    v("gate_temperature", gate_temperature);
    v("dropout", dropout);
  }
  /// @throws ValueError for sizes below one or fewer than two states.
  void validate() const {
    if (mapping_size < 1 || num_states < 2 || gate_temperature == 0)
      throw ValueError(concat("SHERL: mapping_size ", mapping_size, ", num_states ", num_states,
                              " (at least 2) and gate_temperature ", gate_temperature));
  }
};

/// SHERL: what the shallow layers of a frozen model know, gathered without a gradient through them,
/// as the input of the last block.
///
///     g_i = LN(h_i P_iᵀ + p_i) for each token; the last is the guide u, the others S_i
///     ρ_i = Σ_j ReLU(cos(S_i, S_j)), e_i = (S_i ⊙ u) wᵀ + w₀
///     c_i = ReLU(e_i) / ρ_i, over their sum (lengths and sum + 1e-8)
///     y = drop(LN(ReLU(Σ c_i S_i + u) Qᵀ + q)) + tanh(θ / τ) h_last
///
/// h_i, h_last, y: [..., width]. P_i: [d', width], Q: [width, d'], θ: [1], zero: h_last is not used
/// at the start; LayerNorms with eps 1e-5, the last one with 1e-12. Trained: K d' (width + 3) + d'
/// + 1 + width (d' + 3) + 1 for K states. The states are read without a gradient; the block that
/// runs on y is the only one that keeps activations. With two states c is 0 or 1 and the gate
/// learns nothing: use three or more. For one's own training code; not the identity, cannot be
/// merged. Source: Diao et al. 2024 (arXiv:2407.07523), §3. Tensors: shared.sherl.{down,
/// down_norm}.i, gate, out, out_norm, theta.
template <std::floating_point T>
class BasicSHERL {
 public:
  using Scalar = T;
  using Config = SHERLConfig;

  BasicSHERL(const SHERLConfig& config, Index width, InitContext<T>& context)
      : config_((config.validate(), config)),
        readers_(config.num_states, config.mapping_size, width, context) {
    const Index d = config.mapping_size;
    gate_ = detail::linear_default(context, {1, d}, d);
    gate_bias_ = detail::linear_default(context, {1}, d);
    out_ = detail::linear_default(context, {width, d}, d);
    out_bias_ = detail::linear_default(context, {width}, d);
    norm_weight_ = detail::constant<T>({width}, 1);
    norm_bias_ = detail::constant<T>({width}, 0);
    theta_ = detail::constant<T>({1}, 0);
  }

  /// The new input of the last block, and the weights c, [..., num_states − 1].
  struct Output {
    BasicVar<T> y, weights;
  };
  /// @throws ValueError for another number of states.
  Output operator()(std::vector<BasicVar<T>> states, const BasicVar<T>& last) const {
    for (auto& h : states) h = h.detach();
    const auto read = readers_("SHERL", states);
    auto& tape = last.tape();
    const auto& guide = read.back();
    const std::size_t shallow = read.size() - 1;
    const auto eps = static_cast<T>(1e-8);
    std::vector<BasicVar<T>> units, shares;
    for (std::size_t i = 0; i < shallow; ++i)
      units.push_back(div(read[i], add_scalar(norm_last(read[i]), eps)));
    for (std::size_t i = 0; i < shallow; ++i) {
      BasicVar<T> redundancy;
      for (std::size_t j = 0; j < shallow; ++j) {
        const auto term = relu(sum_axis(mul(units[i], units[j]), -1, true));
        redundancy = redundancy ? add(redundancy, term) : term;
      }
      const auto score = detail::trained_linear(mul(read[i], guide), gate_, gate_bias_);
      shares.push_back(div(relu(score), redundancy));
    }
    auto weights = concat_along(-1, shares);
    weights = div(weights, add_scalar(sum_axis(weights, -1, true), eps));
    auto o = guide;
    for (std::size_t i = 0; i < shallow; ++i)
      o = add(o, mul(read[i], slice(weights, -1, static_cast<Index>(i), 1)));
    const auto y =
        dropout(detail::StateReaders<T>::norm(detail::trained_linear(relu(o), out_, out_bias_),
                                              norm_weight_, norm_bias_, static_cast<T>(1e-12)),
                config_.dropout);
    const auto gate = detail::apply_activation(
        "tanh", scale(tape.parameter(theta_), static_cast<T>(1 / config_.gate_temperature)));
    return {add(y, mul(last.detach(), gate)), weights};
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    readers_.list("sherl", list);
    const std::pair<const char*, const BasicParameter<T>*> rest[] = {
        {"gate.weight", &gate_},
        {"gate.bias", &gate_bias_},
        {"out.weight", &out_},
        {"out.bias", &out_bias_},
        {"out_norm.weight", &norm_weight_},
        {"out_norm.bias", &norm_bias_},
        {"theta", &theta_}};
    for (const auto& [name, parameter] : rest)
      list.push_back(detail::shared_tensor(concat("sherl.", name), *parameter));
    return list;
  }

 private:
  SHERLConfig config_;
  detail::StateReaders<T> readers_;
  BasicParameter<T> gate_, gate_bias_, out_, out_bias_, norm_weight_, norm_bias_, theta_;
};

using SHERL = BasicSHERL<float>;

}  // namespace graft::inline v0_1
