#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/memory/state_readers.hpp"

namespace graft::inline v0_1 {

/// Configuration of SHERL.
struct SHERLConfig {
  Index mapping_size = 512;  ///< d'
  /// Hidden states that are read, the last one the guide; 0: of as many blocks as the model has.
  Index num_states = 0;
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
  /// @throws ValueError for sizes below one or a single state.
  void validate() const {
    if (mapping_size < 1 || (num_states != 0 && num_states < 2) || gate_temperature == 0)
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
/// learns nothing: use three or more. For one's own training code, where num_states is given, or
/// on a model (`SHERLMethod`); not the identity, cannot be merged. Source: Diao et al. 2024
/// (arXiv:2407.07523) Tensors: shared.sherl.{down, down_norm}.i, gate, out, out_norm, theta.
template <std::floating_point T>
class BasicSHERL {
 public:
  using Scalar = T;
  using Config = SHERLConfig;

  BasicSHERL(const SHERLConfig& config, Index width, InitContext<T>& context)
      : config_(checked(config)), readers_(config.num_states, config.mapping_size, width, context) {
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
      const auto score = affine(mul(read[i], guide), gate_, gate_bias_);
      shares.push_back(div(relu(score), redundancy));
    }
    auto weights = concat_along(-1, shares);
    weights = div(weights, add_scalar(sum_axis(weights, -1, true), eps));
    auto o = guide;
    for (std::size_t i = 0; i < shallow; ++i)
      o = add(o, mul(read[i], slice(weights, -1, static_cast<Index>(i), 1)));
    const auto y =
        dropout(detail::StateReaders<T>::norm(affine(relu(o), out_, out_bias_), norm_weight_,
                                              norm_bias_, static_cast<T>(1e-12)),
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
  static const SHERLConfig& checked(const SHERLConfig& config) {
    config.validate();
    if (config.num_states == 0) throw ValueError("SHERL: num_states 0, expected the number");
    return config;
  }

  SHERLConfig config_;
  detail::StateReaders<T> readers_;
  BasicParameter<T> gate_, gate_bias_, out_, out_bias_, norm_weight_, norm_bias_, theta_;
};

using SHERL = BasicSHERL<float>;

/// SHERL beside the stack of a model.
template <std::floating_point T>
class SHERLStack final : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  SHERLStack(const SHERLConfig& config, const ModelInfo& model, InitContext<T>& context)
      : first_(model.layers - config.num_states),
        last_(model.layers - 1),
        module_(config, model.hidden_size, context) {}
  std::vector<AdapterTensor<T>> tensors() const override { return module_.tensors(); }
  std::string merge_reason() const override {
    return "SHERL is a network beside the model; that is no change of a weight";
  }
  void begin(BasicTape<T>&) const override { states_.clear(); }
  BasicVar<T> enter(Index layer, const BasicVar<T>& x) const override {
    if (layer >= first_) states_.push_back(x);
    if (layer != last_) return x;
    const auto found = module_(std::exchange(states_, {}), x);
    weights_ = found.weights.value();
    return found.y;
  }
  void leave(Index, const BasicVar<T>&) const override {}
  /// The weights c of the last pass, [tokens, num_states − 1].
  const BasicTensor<T>& last_weights() const { return weights_; }

 private:
  Index first_, last_;
  BasicSHERL<T> module_;
  mutable std::vector<BasicVar<T>> states_;
  mutable BasicTensor<T> weights_;
};

/// SHERL on a model: the states are the inputs of its last num_states blocks, guide and h_last that
/// of the last one, which runs on y; only this block and the head keep activations.
template <std::floating_point T>
struct SHERLMethod {
  using Scalar = T;
  using Config = SHERLConfig;

  static Config example() { return {.mapping_size = 8}; }
  static MethodInfo info() {
    return {.peft_type = "SHERL",
            .name = "SHERL",
            .family = "memory",
            .paper = "arXiv:2407.07523",
            .sites = "blocks",
            .parameters = "; K d' (d + 3) + d' + d (d' + 3) + 2, d' = mapping_size, K states",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  template <class Set>
  static void finish(Config config, Set& set, BasicSiteTable<T>& table, InitContext<T>& context) {
    config.validate();
    if (config.num_states == 0) config.num_states = table.info.layers;
    if (table.stack == nullptr || table.info.layers < config.num_states)
      throw ValueError(
          concat("SHERL: ", config.num_states, " states of a model (", table.info.architecture,
                 ") with ", table.stack == nullptr ? 0 : table.info.layers, " blocks in a stack"));
    const auto part = std::make_shared<SHERLStack<T>>(config, table.info, context);
    table.stack->adapters().push_back({set.name(), part});
    set.add_part(table.stack->path(), part);
  }
};

}  // namespace graft::inline v0_1
