#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"
#include "graft/adapters/bottleneck/token_rows.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/autograd/ops/straight_through.hpp"
#include "graft/autograd/training_passes.hpp"

namespace graft::inline v0_1 {

/// Configuration of dynamic tuning.
struct DyTConfig {
  Index adapter_dim = 64;
  double scaling = 0.1;
  double tau = 5;                   ///< temperature of the gate while training
  double token_target_ratio = 0.5;  ///< ρ, the share of tokens that shall run
  double rate_weight = 2;           ///< of the loss that pulls the share there
  bool complete_model = true;       ///< train a second pass in which every token runs
  double complete_model_kl = 0;     ///< weight of KL(second ‖ first pass), the second one fixed
  Index num_experts = 1;            ///< adapters, mixed by a router for each row of the batch
  double dropout = 0;               ///< inside of the adapters; the original: 0.1
  Selection select = {};

  static constexpr const char* kPeftType = "DYT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("scaling", scaling);
    v("tau", tau);
    v("token_target_ratio", token_target_ratio);
    v("rate_weight", rate_weight);
    v("complete_model", complete_model);
    v("complete_model_kl", complete_model_kl);
    v("num_experts", num_experts);
    v("dropout", dropout);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one, a temperature that is not above zero, shares outside
  /// of [0, 1].
  void validate() const {
    if (adapter_dim < 1 || num_experts < 1)
      throw ValueError(concat("DyT: adapter_dim ", adapter_dim, ", num_experts ", num_experts,
                              ", expected at least 1"));
    if (!(tau > 0)) throw ValueError(concat("DyT: tau ", tau, ", expected above 0"));
    if (!(token_target_ratio >= 0 && token_target_ratio <= 1) || !(dropout >= 0 && dropout < 1))
      throw ValueError(concat("DyT: token_target_ratio ", token_target_ratio, ", dropout ", dropout,
                              ", expected [0, 1] and [0, 1)"));
  }
};

/// Gate and adapter of one feed-forward sublayer.
template <std::floating_point T>
class BasicDyT {
 public:
  using Scalar = T;
  /// What the sites of an adapter have in common.
  struct Pass {
    bool complete = false;  ///< every token runs
  };
  /// Sum of the gates that a pass left, and of how many tokens.
  struct Gates {
    BasicVar<T> sum;
    Index count = 0;
  };

  BasicDyT(const DyTConfig& config, const HiddenSiteInfo<T>& site, InitContext<T>& context)
      : scaling_(static_cast<T>(config.scaling)),
        tau_(static_cast<T>(config.tau)),
        pass_(context.shared.object("dyt.pass", [] { return Pass(); })) {
    using Module = BasicBottleneck<T>;
    for (Index e = 0; e < config.num_experts; ++e)
      experts_.emplace_back(site.width, site.width, config.adapter_dim, "relu",
                            Module::Start::zero_up, context, config.dropout);
    if (config.num_experts > 1)
      router_ = detail::linear_default<T>(context, {config.num_experts, site.width}, site.width);
    gate_ = {detail::linear_default<T>(context, {1, site.width}, site.width),
             detail::linear_default<T>(context, {1}, site.width)};
  }
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output,
                    const BasicVar<T>& residual) const {
    const auto& x = residual ? residual : input;
    const auto y = scale(adapter(x), scaling_);
    return add(pass_->complete ? output : mul(output, open(x)), y);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t e = 0; e < experts_.size(); ++e) {
      const auto own = experts_.size() == 1
                           ? experts_[e].tensors()
                           : detail::below(concat("experts.", e, "."), experts_[e].tensors());
      list.insert(list.end(), own.begin(), own.end());
    }
    if (router_) list.push_back(detail::named("router.weight", router_));
    gate_.list("token_gate", list);
    return list;
  }
  std::string merge_reason() const { return "DyT decides token by token what runs"; }

  /// Noise of the gate in the next passes, [batch, tokens − 1]; empty: it is drawn.
  void set_noise(BasicTensor<T> noise) { noise_ = std::move(noise); }
  /// Which tokens ran in the last pass, 0 or 1 each.
  const BasicTensor<T>& token_mask() const { return mask_; }
  /// The gates of the pass on this tape, once; first tokens and padding do not count.
  Gates take_gates(const BasicTape<T>& tape) const {
    const auto gates = std::exchange(gates_, Gates{});
    return gates.sum && &gates.sum.tape() == &tape ? gates : Gates{};
  }
  const std::shared_ptr<Pass>& pass() const { return pass_; }

 private:
  BasicVar<T> adapter(const BasicVar<T>& x) const {
    if (experts_.size() == 1) return experts_[0](x);
    const Index batch = detail::batch_rows(x), n = std::ssize(experts_);
    const auto weights = softmax(
        matmul(detail::token_means(x), x.tape().parameter(router_), Transpose::no, Transpose::yes));
    BasicVar<T> sum;
    for (Index e = 0; e < n; ++e) {
      const auto y =
          reshape(experts_[static_cast<std::size_t>(e)](x), {batch, x.rows() / batch, x.cols()});
      const auto term = mul(y, reshape(slice(weights, 1, e, 1), {batch, 1, 1}));
      sum = sum ? add(sum, term) : term;
    }
    return reshape(sum, x.shape());
  }
  /// 1 for the tokens that run, [rows, 1].
  BasicVar<T> open(const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto a = gate_(x);
    const Index batch = detail::batch_rows(x), tokens = x.rows() / batch;
    // Tokens behind those of a cache are not the first ones.
    const auto* context = tape.template context<ForwardContext>();
    const bool begins = context == nullptr || context->past_ids.empty();
    auto chosen = BasicTensor<T>::ones(a.shape()), first = BasicTensor<T>::zeros(a.shape());
    for (Index b = 0; b < batch && begins; ++b) {
      chosen[b * tokens] = 0;
      first[b * tokens] = 1;
    }
    BasicVar<T> m;
    if (tape.training()) {
      const auto noisy = add(a, tape.constant(noise(tape, a.shape(), tokens)));
      m = straight_through_above(sigmoid(scale(noisy, 1 / tau_)), T{1} / 2);
    } else {
      auto hard = BasicTensor<T>::empty(a.shape());
      for (Index i = 0; i < hard.size(); ++i) hard[i] = a.value()[i] > 0 ? T{1} : T{0};
      m = tape.constant(hard);
    }
    if (tape.training()) {
      auto counted = chosen.clone();
      const auto real = detail::real_rows(x);
      for (std::size_t i = 0; i < real.size(); ++i) counted[static_cast<Index>(i)] *= real[i];
      Index count = 0;
      for (const T c : counted) count += c > 0 ? 1 : 0;
      gates_ = {sum(mul(m, tape.constant(counted))), count};
    }
    m = add(mul(m, tape.constant(chosen)), tape.constant(first));
    mask_ = m.value();
    return m;
  }
  /// The difference of two Gumbel variables, which is logistic: log u − log (1 − u).
  BasicTensor<T> noise(BasicTape<T>& tape, const Shape& shape, Index tokens) const {
    auto t = BasicTensor<T>::zeros(shape);
    if (noise_) {
      if (noise_.size() != t.size() / tokens * (tokens - 1))
        throw ShapeError(concat("DyT: noise ", noise_.shape().text(), " for ", shape.text()));
      for (Index i = 0; i < t.size(); ++i)
        if (i % tokens != 0) t[i] = noise_[i / tokens * (tokens - 1) + i % tokens - 1];
      return t;
    }
    const std::uint64_t key = tape.next_random_key();
    for (Index i = 0; i < t.size(); ++i) {
      const std::uint64_t z = splitmix64(key + static_cast<std::uint64_t>(i) * kSplitMixStep);
      const double u = (static_cast<double>(z >> 11) + 0.5) * 0x1p-53;
      t[i] = static_cast<T>(std::log(u) - std::log1p(-u));
    }
    return t;
  }

  T scaling_, tau_;
  std::shared_ptr<Pass> pass_;
  std::vector<BasicBottleneck<T>> experts_;
  BasicParameter<T> router_;
  detail::TrainedAffine<T> gate_;
  BasicTensor<T> noise_;
  mutable BasicTensor<T> mask_;
  mutable Gates gates_;
};

/// Dynamic tuning: x₂ = x₁ + m ⊙ F(LN(x₁)) + A(x₁) for the feed-forward sublayer F, A(x) = s
/// (ReLU(x Dᵀ + b_D) Uᵀ + b_U) and a gate m of 0 or 1 for each token: training m = [σ((x₁ w_gᵀ + c
/// + g)/τ) > ½], g logistic noise, straight through to σ; else m = [x₁ w_gᵀ + c > 0]. The first
/// token of a row (a class token) always runs.
///
/// D: [r, d], U: [d, r], w_g: [1, d]. Trained a block: 2 d r + r + d for each adapter, d + 1, and
/// num_experts d for the router of several, which mixes them by softmax(mean of x₁ W_rᵀ) a row of
/// the batch. At the start U = 0, but the gate closes already. Losses: rate_weight (mean m − ρ)²
/// over blocks and tokens but the first, padding not counted; with complete_model that of a second
/// pass with m = 1, and complete_model_kl KL(second ‖ first). Not mergeable. Source: Zhao et al.
/// 2024 (arXiv:2403.11808), sections 3.2 to 3.4. Deviation: F runs for all tokens, its result is
/// dropped where m = 0, so nothing is saved yet. Tensors: adapter_{down, up}.{weight, bias} (of
/// several below `experts.<e>`), router.weight, token_gate.{weight, bias}.
template <std::floating_point T>
struct DyTMethod {
  using Scalar = T;
  using Config = DyTConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "DYT",
            .name = "Dynamic tuning",
            .family = "bottleneck",
            .paper = "arXiv:2403.11808",
            .sites = "hidden",
            .parameters =
                "num_experts (2 d r + r + d) + min(1, num_experts - 1) num_experts d + d "
                "+ 1, r = adapter_dim",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false,
            .exact_gradient = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::feed_forward) return nullptr;
    return hidden_part(BasicDyT<T>(config, site, context));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>&, InitContext<T>&) {
    const auto gates = methods_of<BasicDyT<T>>(set.parts());
    if (gates.empty()) return;
    set.set_loss([gates, config](BasicTape<T>& tape) {
      typename BasicDyT<T>::Gates all;
      for (const auto* gate : gates) {
        const auto own = gate->take_gates(tape);
        if (!own.sum) continue;
        all.sum = all.sum ? add(all.sum, own.sum) : own.sum;
        all.count += own.count;
      }
      if (all.count == 0) return BasicVar<T>{};
      const auto off = add_scalar(scale(all.sum, T{1} / static_cast<T>(all.count)),
                                  static_cast<T>(-config.token_target_ratio));
      return scale(square(off), static_cast<T>(config.rate_weight));
    });
    if (!config.complete_model) return;
    set.set_objective([pass = gates.front()->pass(), config](BasicTape<T>& tape,
                                                             const TrainingPasses<T>& passes) {
      if (!tape.training()) return passes.loss();
      struct Complete {
        typename BasicDyT<T>::Pass& pass;
        explicit Complete(typename BasicDyT<T>::Pass& p) : pass(p) { pass.complete = true; }
        ~Complete() { pass.complete = false; }
      };
      if (config.complete_model_kl == 0) {
        const auto loss = passes.loss();
        const Complete complete(*pass);
        return add(loss, passes.loss());
      }
      const auto logits = passes.logits();
      const Complete complete(*pass);
      const auto all = passes.logits();
      return add(
          add(passes.loss_of(logits), passes.loss_of(all)),
          scale(kl_divergence(all.detach(), logits), static_cast<T>(config.complete_model_kl)));
    });
  }
};

}  // namespace graft::inline v0_1
