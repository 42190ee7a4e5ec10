#pragma once

#include <string>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/mixtures/router.hpp"

namespace graft::inline v0_1 {

/// Experts of every block by a named shape: four equal groups of blocks have 2 4 6 8 experts
/// (inverted_triangle), 8 6 4 2 (triangle), 8 2 2 8 (hourglass) or 5 5 5 5 (rectangle); block l of
/// L is in group ⌊4 l / L⌋. @throws ValueError for another shape
inline std::vector<Index> expert_allocation(const std::string& shape, Index blocks) {
  std::vector<Index> groups;
  if (shape == "inverted_triangle") groups = {2, 4, 6, 8};
  if (shape == "triangle") groups = {8, 6, 4, 2};
  if (shape == "hourglass") groups = {8, 2, 2, 8};
  if (shape == "rectangle") groups = {5, 5, 5, 5};
  if (groups.empty())
    throw ValueError(concat("MoLA: allocation '", shape,
                            "', expected inverted_triangle, triangle, hourglass or rectangle"));
  std::vector<Index> list;
  for (Index l = 0; l < blocks; ++l)
    list.push_back(groups[static_cast<std::size_t>(4 * l / blocks)]);
  return list;
}

/// Configuration of MoLA.
struct MoLAConfig {
  /// Experts of a layer: one number, one for each block, or the name of an `expert_allocation`.
  ConfigValue num_experts = "inverted_triangle";
  Index top_k = 2;
  Index rank = 8;
  double alpha = 16;
  double dropout = 0;  ///< on the input of the experts, while training; the original: 0.05
  double router_aux_loss_coef = 1e-3;  ///< of the balance loss, averaged over all routers
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "MOLA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_experts", num_experts);
    v("top_k", top_k);
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("router_aux_loss_coef", router_aux_loss_coef);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for counts below one, a dropout outside of [0, 1) or an unknown allocation.
  void validate() const {
    detail::require_experts("MoLA", 1, top_k, rank);
    detail::require_dropout("MoLA", dropout);
    experts_of(-1, 0);
  }
  /// Experts of the layers of one block of a model; outside of a model, layer −1, of the first one.
  /// @throws ValueError for counts below one, or a list without this block
  Index experts_of(Index layer, Index layers) const {
    const Index block = std::max(layer, Index{0}), blocks = std::max({layers, block + 1, Index{1}});
    Index experts = 0;
    if (const auto* shape = num_experts.get_if<std::string>()) {
      experts = expert_allocation(*shape, blocks)[static_cast<std::size_t>(block)];
    } else if (num_experts.get_if<ConfigValue::List>() != nullptr) {
      std::vector<Index> list;
      detail::read_config("num_experts", num_experts, list);
      if (block >= std::ssize(list))
        throw ValueError(
            concat("MoLA: num_experts of ", list.size(), " blocks, there is block ", block));
      experts = list[static_cast<std::size_t>(block)];
    } else {
      detail::read_config("num_experts", num_experts, experts);
    }
    detail::require_experts("MoLA", experts, top_k, rank);
    return experts;
  }
};

/// MoLA: y = base(x) + s Σ_{e ∈ top-k} w_e drop(x) A_eᵀ B_eᵀ, w the router's k largest
/// probabilities softmax(x W_rᵀ) divided by their sum; higher blocks have more experts.
///
/// A: [N, r, in], B: [N, out, r], W_r: [N, in], s = alpha / r; trained: N r (in + out) + N in. The
/// identity at the start (B = 0; A and W_r Kaiming-uniform). Loss: router_aux_loss_coef · L_bal,
/// averaged over all routers, padding not counted. Does not merge: the weight depends on the token.
/// All experts run as one product of rank N r, those not chosen with weight zero. Source: Gao et
/// al. 2024 (arXiv:2402.08562), section 3. Tensors: lora_A, lora_B, router.weight.
template <std::floating_point T>
class BasicMoLA {
 public:
  using Scalar = T;
  using Config = MoLAConfig;

  BasicMoLA(const MoLAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : top_k_(config.top_k),
        dropout_(config.dropout),
        coefficient_(detail::share_of_loss(config.router_aux_loss_coef, site)) {
    config.validate();
    detail::require_plain("MoLA", site);
    const Index n = config.experts_of(site.layer, site.layers);
    routed_.experts = {n, config.rank, config.alpha, site.in_features, site.out_features, context};
    routed_.router = {n, site.in_features, false, 0, context};
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto rows = detail::as_rows(x);
    const auto r = route(routed_.router(rows), top_k_, true);
    if (coefficient_ > 0)
      pending_.leave(x.tape(), [r, this,
                                counted = counted_rows(x.tape().template context<ForwardContext>(),
                                                       rows.rows())] {
        return scale(balance_loss(r, counted), coefficient_);
      });
    return routed_.apply(base, x, rows, r.weights, dropout_);
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const { return pending_.take(tape); }
  std::vector<AdapterTensor<T>> tensors() const { return routed_.tensors(); }
  std::string merge_reason() const {
    return "MoLA chooses its experts token by token; a weight cannot hold that";
  }
  static MethodInfo info() {
    return {.peft_type = "MOLA",
            .name = "MoLA",
            .family = "mixtures",
            .paper = "arXiv:2402.08562",
            .sites = "linear",
            .parameters = "; N r (in + out) + N in, N the experts of the block",
            .mergeable = false,
            .in_peft = false};
  }

 private:
  Index top_k_;
  double dropout_;
  T coefficient_;
  RoutedExperts<T> routed_;
  detail::PendingLoss<T> pending_;
};

using MoLA = BasicMoLA<float>;

}  // namespace graft::inline v0_1
