#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/method.hpp"
#include "graft/adapters/mixtures/feed_forward.hpp"
#include "graft/adapters/mixtures/router.hpp"
#include "graft/adapters/named_activation.hpp"
#include "graft/adapters/plain_lora.hpp"

namespace graft::inline v0_1 {

/// Configuration of MixLoRA.
struct MixLoRAConfig {
  Index num_experts = 8;
  Index top_k = 2;
  Index rank = 16;
  std::optional<double> alpha = {};  ///< none: 2 r
  double dropout = 0;       ///< on inputs of low-rank products, while training; the original: 0.05
  double jitter_noise = 0;  ///< j: the router's input times uniform [1 − j, 1 + j), while training
  double router_aux_loss_coef = 1e-2;  ///< of the balance loss, averaged over the blocks
  double router_init_range = 0.02;
  std::string routing_strategy = "mixtral";
  std::optional<std::string> act_fn = {};  ///< of the feed-forward blocks; none: that of the model
  /// Layers of feed-forward blocks get experts, all others a LoRA. None: all but output layers.
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "MIXLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_experts", num_experts);
    v("top_k", top_k);
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("jitter_noise", jitter_noise);
    v("router_aux_loss_coef", router_aux_loss_coef);
    v("router_init_range", router_init_range);
    v("routing_strategy", routing_strategy);
    v("act_fn", act_fn);
    v("target_modules", target_modules);
    select.fields(v);
  }
  double scale_alpha() const { return alpha.value_or(2 * static_cast<double>(rank)); }
  /// @throws ValueError for counts below one, numbers out of range or an unknown word.
  void validate() const {
    detail::require_experts("MixLoRA", num_experts, top_k, rank);
    detail::require_dropout("MixLoRA", dropout);
    if (!(jitter_noise >= 0 && jitter_noise < 1))
      throw ValueError(concat("MixLoRA: jitter_noise ", jitter_noise, ", expected [0, 1)"));
    if (!(router_init_range > 0))
      throw ValueError(
          concat("MixLoRA: router_init_range ", router_init_range, ", expected more than 0"));
    if (routing_strategy != "mixtral")
      throw ValueError(concat("MixLoRA: routing_strategy '", routing_strategy,
                              "' is not supported, expected mixtral"));
    if (act_fn) detail::require_activation("MixLoRA", *act_fn);
  }
};

/// The experts of one feed-forward block under MixLoRA, shared by the parts at its layers.
///
/// The parts in front keep what their frozen layers give; that of the last layer runs the experts.
template <std::floating_point T>
class MixLoRABlock {
 public:
  using Role = detail::FeedForwardRole;

  MixLoRABlock(const MixLoRAConfig& config, kernels::Activation activation, Index width,
               InitContext<T>& context)
      : config_(config),
        activation_(activation),
        coefficient_(static_cast<T>(config.router_aux_loss_coef)),
        router_(config.num_experts, width, false, config.router_init_range, context) {}

  /// Experts of one of the layers.
  void adapt(Role role, Index in, Index out, InitContext<T>& context) {
    experts(role).emplace(config_.num_experts, config_.rank, config_.scale_alpha(), in, out,
                          context);
  }
  void set_blocks(Index blocks) {
    coefficient_ = static_cast<T>(config_.router_aux_loss_coef / static_cast<double>(blocks));
  }
  std::vector<AdapterTensor<T>> tensors(Role role) const {
    std::vector<AdapterTensor<T>> list;
    if (const auto& own = experts(role)) own->list(list);
    return list;
  }
  std::vector<AdapterTensor<T>> router_tensors() const {
    std::vector<AdapterTensor<T>> list;
    router_.list(list);
    return list;
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const { return pending_.take(tape); }
  /// Factors of the router's input in the next passes in training, in place of random ones:
  /// [tokens, d]. An empty tensor: random ones again.
  void set_jitter(BasicTensor<T> factors) { given_jitter_ = std::move(factors); }

  /// A frozen layer in front: its output, kept for the experts.
  BasicVar<T> first(Role role, const BasicVar<T>& x, const BasicVar<T>& y) const {
    input_ = x;
    (role == Role::gate ? gate_ : up_) = y;
    return y;
  }
  /// Σ_e w_e o_e in place of the last layer, base. x is what the frozen layers made, or what the
  /// experts of another MixLoRA above this one made of it: their changes add up then.
  template <Linear L>
  BasicVar<T> last(const L& base, const BasicVar<T>& x_last) const {
    const auto input = std::exchange(input_, BasicVar<T>{}), up = std::exchange(up_, BasicVar<T>{}),
               gate = std::exchange(gate_, BasicVar<T>{});
    if (!input || !up)
      throw ValueError("MixLoRA: the last layer of a feed-forward block ran without the others");
    auto& tape = input.tape();
    const auto u = detail::as_rows(input), wide = detail::as_rows(up);
    const auto r = route(router_(jittered(u)), config_.top_k, true);
    if (coefficient_ > 0)
      pending_.leave(
          tape,
          [this, r, counted = counted_rows(tape.template context<ForwardContext>(), u.rows())] {
            return scale(balance_loss(r, counted), coefficient_);
          });
    const auto x = graft::dropout(u, config_.dropout);
    const Index tokens = u.rows(), n = config_.num_experts;
    // The rows of each expert one after the other, and where those of a token are.
    std::vector<std::vector<Index>> of(static_cast<std::size_t>(n));
    for (Index m = 0; m < tokens; ++m)
      for (Index i = 0; i < r.k; ++i)
        of[static_cast<std::size_t>(r.chosen[static_cast<std::size_t>(m * r.k + i)])].push_back(m);
    std::vector<Index> place(static_cast<std::size_t>(tokens * r.k)),
        used(static_cast<std::size_t>(tokens), 0);
    std::vector<BasicVar<T>> inner, outer;
    Index at = 0;
    for (Index e = 0; e < n; ++e) {
      const auto& rows = of[static_cast<std::size_t>(e)];
      if (rows.empty()) continue;
      std::vector<Index> share;
      for (const Index m : rows) {
        share.push_back(m * n + e);
        place[static_cast<std::size_t>(m * r.k + used[static_cast<std::size_t>(m)]++)] = at++;
      }
      const auto own = gather_rows(x, rows);
      const auto z =
          gate ? mul(activated(moved(Role::gate, gather_rows(detail::as_rows(gate), rows), own, e)),
                     moved(Role::up, gather_rows(wide, rows), own, e))
               : activated(moved(Role::up, gather_rows(wide, rows), own, e));
      const auto weighted = mul(z, take(r.weights, share, {std::ssize(rows), 1}));
      inner.push_back(weighted);
      if (const auto& down = experts(Role::down))
        outer.push_back(down->one_of(graft::dropout(weighted, config_.dropout), e));
    }
    const auto summed = [&](const std::vector<BasicVar<T>>& parts) {
      const auto all = gather_rows(concat_along(0, parts), place);
      return sum_axis(reshape(all, {tokens, r.k, all.cols()}), 1);
    };
    // The weights of a token sum to one, so the frozen layer and its bias run once.
    auto z = summed(inner);
    if (depth_ > 0) {
      const auto frozen = gate ? mul(activated(detail::as_rows(gate)), wide) : activated(wide);
      z = add(detail::as_rows(x_last), sub(z, frozen));
    }
    const Inside inside;
    auto y = linear(base, z);
    if (!outer.empty()) y = add(y, summed(outer));
    return reshape(y, up.shape().with_last(y.cols()));
  }

 private:
  std::optional<LoRAExperts<T>>& experts(Role role) {
    return experts_[role == Role::gate ? 0 : role == Role::up ? 1 : 2];
  }
  const std::optional<LoRAExperts<T>>& experts(Role role) const {
    return experts_[role == Role::gate ? 0 : role == Role::up ? 1 : 2];
  }
  BasicVar<T> moved(Role role, const BasicVar<T>& frozen, const BasicVar<T>& x, Index e) const {
    const auto& own = experts(role);
    return own ? add(frozen, own->one_of(x, e)) : frozen;
  }
  BasicVar<T> activated(const BasicVar<T>& x) const {
    return config_.act_fn ? detail::apply_activation(*config_.act_fn, x)
                          : activation(activation_, x);
  }
  BasicVar<T> jittered(const BasicVar<T>& u) const {
    if (!u.tape().training()) return u;
    if (given_jitter_) {
      if (given_jitter_.size() != u.size())
        throw ShapeError(concat("MixLoRA: ", given_jitter_.size(), " factors of jitter for ",
                                u.rows(), " tokens of width ", u.cols()));
      return mul(u, u.tape().constant(given_jitter_.reshape(u.shape())));
    }
    if (config_.jitter_noise == 0) return u;
    auto noise = BasicTensor<T>::empty(u.shape());
    TorchGenerator generator(u.tape().next_random_key());
    generator.uniform(noise.data(), noise.size(), 1 - config_.jitter_noise,
                      1 + config_.jitter_noise);
    return mul(u, u.tape().constant(noise));
  }

  /// How many last layers of other MixLoRAs run around this one.
  static inline thread_local int depth_ = 0;
  struct Inside {
    Inside() { ++depth_; }
    ~Inside() { --depth_; }
  };

  MixLoRAConfig config_;
  kernels::Activation activation_;
  T coefficient_;
  ExpertRouter<T> router_;
  std::optional<LoRAExperts<T>> experts_[3];
  BasicTensor<T> given_jitter_;
  mutable BasicVar<T> input_, gate_, up_;
  detail::PendingLoss<T> pending_;
};

/// MixLoRA at one layer of a feed-forward block.
template <std::floating_point T>
class MixLoRALayer {
 public:
  using Scalar = T;
  using Role = detail::FeedForwardRole;
  MixLoRALayer(Role role, std::shared_ptr<MixLoRABlock<T>> block)
      : role_(role), block_(std::move(block)) {}
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return role_ == Role::down ? block_->last(base, x) : block_->first(role_, x, linear(base, x));
  }
  std::vector<AdapterTensor<T>> tensors() const { return block_->tensors(role_); }
  std::string merge_reason() const {
    return "MixLoRA chooses its experts token by token; a weight cannot hold that";
  }

 private:
  Role role_;
  std::shared_ptr<MixLoRABlock<T>> block_;
};

/// The router of a block.
template <std::floating_point T>
class MixLoRARouter final : public AdapterPart<T> {
 public:
  explicit MixLoRARouter(std::shared_ptr<MixLoRABlock<T>> block) : block_(std::move(block)) {}
  std::vector<AdapterTensor<T>> tensors() const override { return block_->router_tensors(); }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const override {
    return block_->auxiliary_loss(tape);
  }
  void set_jitter(BasicTensor<T> factors) { block_->set_jitter(std::move(factors)); }

 private:
  std::shared_ptr<MixLoRABlock<T>> block_;
};

/// An ordinary LoRA, for the layers of a MixLoRA that are in no feed-forward block. In no group:
/// what optimisers do with pairs of factors would leave out the experts.
template <std::floating_point T>
class MixLoRAPlain : public detail::PlainLoRA<T> {
 public:
  using detail::PlainLoRA<T>::PlainLoRA;
  std::vector<AdapterTensor<T>> tensors() const {
    auto list = detail::PlainLoRA<T>::tensors();
    for (auto& t : list) t.group.clear();
    return list;
  }
};

/// MixLoRA: every feed-forward block becomes a mixture of experts that share its frozen weights and
/// differ by LoRAs; other layers get an ordinary LoRA.
///
/// Gated block: z_e = act(u W_gᵀ + s u A_e^gᵀ B_e^gᵀ) ⊙ (u W_uᵀ + s u A_e^uᵀ B_e^uᵀ), o_e = z_e
/// W_dᵀ
/// + s z_e A_e^dᵀ B_e^dᵀ, output Σ_{e ∈ top-k} w_e o_e, w the k largest of softmax(u W_rᵀ) divided
/// by their sum; not gated: z_e = act(u W_1ᵀ + b_1 + …). The frozen products run once: W_g and W_u
/// before the experts, W_d on Σ_e w_e z_e. A: [N, r, in], B: [N, out, r], W_r: [N, d], s = alpha /
/// r; trained: N r (in + out) a layer, N d a block, r (in + out) for a LoRA. The identity at the
/// start (B = 0; A Kaiming-uniform, W_r N(0, router_init_range)). Loss: router_aux_loss_coef ·
/// L_bal, averaged over the blocks, padding not counted. Does not merge, where a block takes part.
/// Source: Li et al. 2024 (arXiv:2404.15159), section 3. Deviations: jitter acts on the router's
/// input only, the authors' program changes that of the experts too; its default coefficient is
/// 10⁻³. Tensors: `<layer>.lora_A`, `<layer>.lora_B`, `<block>.router.weight`, and
/// `<layer>.lora_A.weight`, `<layer>.lora_B.weight` of LoRAs.
template <std::floating_point T>
struct MixLoRAMethod {
  using Scalar = T;
  using Config = MixLoRAConfig;
  using Role = detail::FeedForwardRole;
  static constexpr bool kByRole = true;

  static MethodInfo info() {
    return {.peft_type = "MIXLORA",
            .name = "MixLoRA",
            .family = "mixtures",
            .paper = "arXiv:2404.15159",
            .sites = "linear",
            .parameters =
                "; N r (in + out) a layer of a feed-forward block and N d a block, r (in + out) "
                "elsewhere, N = num_experts",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty() && site.model.is_output_layer(site.path)) return nullptr;
    detail::require_plain("MixLoRA", site);
    const auto place = detail::feed_forward_place(site.path);
    if (place.role == Role::none)
      return linear_part(
          MixLoRAPlain<T>(config.rank, config.scale_alpha(), config.dropout, site, context));
    const Index width = place.role == Role::down ? site.out_features : site.in_features;
    auto& block = *context.shared.object("mixlora " + place.block, [&] {
      return std::make_shared<MixLoRABlock<T>>(config, site.model.activation, width, context);
    });
    block->adapt(place.role, site.in_features, site.out_features, context);
    return linear_part(MixLoRALayer<T>(place.role, block));
  }
  /// The layers of a block that have no experts of their own take part too; routers come last.
  template <class Set>
  static void finish(const Config&, Set& set, BasicSiteTable<T>& table, InitContext<T>& context) {
    using Block = std::shared_ptr<MixLoRABlock<T>>;
    std::map<std::string, Block> blocks;
    std::vector<std::string> order, adapted;
    for (const auto& placed : set.parts()) {
      adapted.push_back(placed.path);
      const auto place = detail::feed_forward_place(placed.path);
      if (place.role == Role::none || blocks.contains(place.block)) continue;
      blocks[place.block] =
          *context.shared.object("mixlora " + place.block, []() -> Block { return nullptr; });
      order.push_back(place.block);
    }
    for (auto& [path, block] : blocks) {
      block->set_blocks(std::ssize(order));
      bool up = false, down = false;
      for (auto* site : table.linear) {
        const auto place = detail::feed_forward_place(site->path());
        if (place.role == Role::none || place.block != path) continue;
        up = up || place.role == Role::up;
        down = down || place.role == Role::down;
        if (std::find(adapted.begin(), adapted.end(), site->path()) != adapted.end()) continue;
        const auto part = linear_part(MixLoRALayer<T>(place.role, block));
        site->adapters().push_back({set.name(), part});
        set.add_part(site->path(), part);
      }
      if (!up || !down)
        throw ValueError(
            concat("MixLoRA: the feed-forward block ", path, " lacks its first or its last layer"));
    }
    for (const auto& path : order)
      set.add_part(path, std::make_shared<MixLoRARouter<T>>(blocks[path]));
  }
};

}  // namespace graft::inline v0_1
