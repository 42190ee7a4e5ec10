#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prompt_stack.hpp"

namespace graft::inline v0_1 {

/// Configuration of instruction-aware prompt tuning.
struct IaptConfig {
  Index num_virtual_tokens = 4;
  Index generator_dim = 64;

  static constexpr const char* kPeftType = "IAPT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_virtual_tokens", num_virtual_tokens);
    v("generator_dim", generator_dim);
  }
  /// @throws ValueError for a size below 1.
  void validate() const {
    if (num_virtual_tokens < 1 || generator_dim < 1)
      throw ValueError(concat("IAPT: num_virtual_tokens ", num_virtual_tokens, ", generator_dim ",
                              generator_dim, ", expected at least 1"));
  }
};

/// R(x) = Σ_0^6 a_j x^j / (1 + |Σ_1^5 c_i x^i|), an activation whose coefficients are trained; a:
/// [7], c: [5]. Source: Molina et al. 2020, arXiv:1907.06732.
template <std::floating_point T>
BasicVar<T> rational(const BasicVar<T>& x, const BasicVar<T>& a, const BasicVar<T>& c) {
  // Horner's rule.
  const auto coefficient = [](const BasicVar<T>& list, Index i) { return slice(list, 0, i, 1); };
  auto top = add(mul(x, coefficient(a, 6)), coefficient(a, 5));
  for (Index j = 5; j-- > 0;) top = add(mul(x, top), coefficient(a, j));
  auto bottom = mul(x, coefficient(c, 4));
  for (Index i = 4; i-- > 0;) bottom = mul(x, add(bottom, coefficient(c, i)));
  return div(top, add_scalar(abs(bottom), T{1}));
}

namespace detail {

/// Makes the prompts of one block from the instruction's hidden states.
template <std::floating_point T>
class IaptGenerator {
 public:
  IaptGenerator(const IaptConfig& config, Index width, InitContext<T>& context)
      : down_(normal({config.generator_dim, width}, context)),
        query_(normal({config.num_virtual_tokens, config.generator_dim}, context)),
        up_(normal({width, config.generator_dim}, context)),
        bias_(BasicTensor<T>::zeros({width})),
        // The rational function nearest to GELU on [-3, 3].
        numerator_(
            BasicTensor<T>::from(std::vector<double>{2.8315619e-05, 0.5, 0.39849804, 0.16253446,
                                                     0.064246673, 0.018369187, 0.0021048975},
                                 {7})),
        denominator_(
            BasicTensor<T>::from(std::vector<double>{0, 0.32506891, 0, 0.036738374, 0}, {5})) {}

  /// h: [batch, tokens, width]; hidden: [batch, 1, tokens], a large negative number for tokens that
  /// are not pooled. [batch, prompts, width]
  BasicVar<T> operator()(const BasicVar<T>& h, const BasicTensor<T>& hidden) const {
    auto& tape = h.tape();
    const auto z = matmul(h, tape.parameter(down_), Transpose::no, Transpose::yes);
    const auto scores =
        permute(matmul(z, tape.parameter(query_), Transpose::no, Transpose::yes), {0, 2, 1});
    const auto u = matmul(softmax(add(scores, tape.constant(hidden))), z);
    const auto g = rational(u, tape.parameter(numerator_), tape.parameter(denominator_));
    return trained_affine<T>(g, tape.parameter(up_), tape.parameter(bias_));
  }
  void list(std::vector<AdapterTensor<T>>& tensors, const std::string& block) const {
    const auto add = [&](const char* name, const BasicParameter<T>& parameter,
                         const char* group = "") {
      tensors.push_back(whole_name<T>(block + ".iapt." + name, parameter));
      tensors.back().group = group;
    };
    add("down.weight", down_);
    add("query", query_);
    add("up.weight", up_);
    add("up.bias", bias_);
    add("numerator", numerator_, "activation");
    add("denominator", denominator_, "activation");
  }

 private:
  static BasicTensor<T> normal(const Shape& shape, InitContext<T>& context) {
    return context.loading ? BasicTensor<T>::zeros(shape)
                           : normal_tensor<T>(context.generator, shape, 0.02);
  }
  BasicParameter<T> down_, query_, up_, bias_, numerator_, denominator_;
};

/// Room for the prompts, which the stack fills.
template <std::floating_point T>
class IaptRoom final : public PromptPart<T> {
 public:
  IaptRoom(Index tokens, Index width) : tokens_(tokens), width_(width) {}
  Index virtual_tokens() const override { return tokens_; }
  BasicVar<T> prompt(BasicTape<T>& tape, Index batch, const ForwardContext&) const override {
    return tape.constant(BasicTensor<T>::zeros({batch, tokens_, width_}));
  }
  bool predicts() const override { return false; }
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }

 private:
  Index tokens_, width_;
};

template <std::floating_point T>
class IaptStack final : public PromptStack<T> {
 public:
  IaptStack(const IaptConfig& config, std::vector<std::string> blocks,
            const BasicSiteTable<T>& table, InitContext<T>& context)
      : PromptStack<T>(config.num_virtual_tokens, table.prompt->in_front()),
        blocks_(std::move(blocks)) {
    for (std::size_t l = 0; l < blocks_.size(); ++l)
      generators_.emplace_back(config, table.info.hidden_size, context);
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t l = 0; l < blocks_.size(); ++l) generators_[l].list(list, blocks_[l]);
    return list;
  }
  /// Prompts of block `layer` from the hidden states that enter it, [batch, tokens, width].
  BasicVar<T> generate(Index layer, const BasicVar<T>& h, const ForwardContext& context) const {
    return generators_.at(static_cast<std::size_t>(layer))(h, hidden_tokens(context, h.dim(1)));
  }

 protected:
  BasicVar<T> prompts(Index layer, const BasicVar<T>& x,
                      const ForwardContext& context) const override {
    const Index rest = context.seq_len;
    return generate(layer, slice(x, 1, x.dim(1) - rest, rest), context);
  }

 private:
  /// Which tokens are the instruction: those that the batch says; else, where it has labels, those
  /// before the first one; else all real ones.
  static BasicTensor<T> hidden_tokens(const ForwardContext& context, Index tokens) {
    auto hidden = BasicTensor<T>::zeros({context.batch, 1, tokens});
    for (Index b = 0; b < context.batch; ++b) {
      const auto row = static_cast<std::size_t>(b * tokens);
      bool answer = false;
      Index pooled = 0;
      for (Index t = 0; t < tokens; ++t) {
        const auto at = row + static_cast<std::size_t>(t);
        const bool real = context.token_mask.empty() || context.token_mask[at] != 0;
        if (!context.labels.empty() && context.labels[at] >= 0) answer = true;
        const bool wanted =
            context.instruction_mask.empty() ? !answer : context.instruction_mask[at] != 0;
        pooled += real && wanted;
        if (!real || !wanted) hidden[b * tokens + t] = static_cast<T>(-1e30);
      }
      if (pooled > 0) continue;
      for (Index t = 0; t < tokens; ++t)
        if (context.token_mask.empty() ||
            context.token_mask[row + static_cast<std::size_t>(t)] != 0)
          hidden[b * tokens + t] = 0;
    }
    return hidden;
  }

  std::vector<std::string> blocks_;
  std::vector<IaptGenerator<T>> generators_;
};

}  // namespace detail

/// Instruction-aware prompt tuning: before each block, from the hidden states h of the instruction
/// that enter it, z = h W_dᵀ, u = softmax over tokens (z Qᵀ)ᵀ z, P = R(u) W_uᵀ + b_u; P stands in
/// front of the sequence, in place of what the block before made of the last one. R: `rational`.
///
/// W_d: [m, d], Q: [p, m], W_u: [d, m], b_u: [d], 12 coefficients; trained: 2 m d + p m + d + 12 a
/// block. Not the identity at the start; does not merge. The instruction is what the batch's
/// `instruction_mask` says, without one the tokens before the first label, or all. Prompts take
/// positions 0 … p − 1 and predict nothing. The coefficients are the optimiser's group
/// "activation", trained with the rest (the paper: in turn, on another half of the data). Source:
/// Zhu et al. 2024, arXiv:2405.18203, section 3. Tensors: model.layers.N.iapt.{down, query, up,
/// numerator, denominator}.
template <std::floating_point T>
struct IaptMethod {
  using Scalar = T;
  using Config = IaptConfig;
  static MethodInfo info() {
    return {.peft_type = "IAPT",
            .name = "Instruction-aware prompt tuning",
            .family = "prompts",
            .paper = "arXiv:2405.18203",
            .sites = "prompt, blocks",
            .parameters = "; 2 generator_dim d + num_virtual_tokens generator_dim + d + 12 a block",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false,
            .adds_up = false};
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    detail::place_prompt<T>(
        set, table,
        std::make_shared<detail::IaptRoom<T>>(config.num_virtual_tokens, table.info.hidden_size));
    detail::place_stack<T>(
        set, table,
        std::make_shared<detail::IaptStack<T>>(config, detail::block_paths(table), table, context));
  }
};

}  // namespace graft::inline v0_1
