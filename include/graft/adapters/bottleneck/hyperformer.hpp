#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"
#include "graft/adapters/bottleneck/shared_network.hpp"

namespace graft::inline v0_1 {

/// Configuration of HyperFormer. HyperFormer++ has the same fields.
struct HyperFormerConfig {
  Index adapter_dim = 24;
  Index task_embedding_dim = 64;
  Index task_hidden_dim = 128;
  Index projected_task_embedding_dim = 64;
  Index num_tasks = 1;
  Index task = 0;  ///< the one that runs, from 0
  std::string non_linearity = "swish";
  bool train_layer_norm = false;  ///< all norms of the model too
  Selection select = {};

  static constexpr const char* kPeftType = "HYPERFORMER";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("task_embedding_dim", task_embedding_dim);
    v("task_hidden_dim", task_hidden_dim);
    v("projected_task_embedding_dim", projected_task_embedding_dim);
    v("num_tasks", num_tasks);
    v("task", task);
    v("non_linearity", non_linearity);
    v("train_layer_norm", train_layer_norm);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one, a task that does not exist, an unknown activation.
  void validate() const {
    if (adapter_dim < 1 || task_embedding_dim < 1 || task_hidden_dim < 1 ||
        projected_task_embedding_dim < 1)
      throw ValueError("HyperFormer: a size is below 1");
    if (task < 0 || task >= num_tasks)
      throw ValueError(concat("HyperFormer: task ", task, " of ", num_tasks));
    detail::require_activation("HyperFormer", non_linearity);
  }
};
struct HyperFormerPlusPlusConfig : HyperFormerConfig {
  static constexpr const char* kPeftType = "HYPERFORMER_PLUS_PLUS";
};

/// The adapter of one site, generated from embeddings of task, layer and (++) position.
template <std::floating_point T>
class BasicHyperFormer {
 public:
  using Scalar = T;

  BasicHyperFormer(const HyperFormerConfig& config, bool with_position,
                   const HiddenSiteInfo<T>& site, InitContext<T>& context)
      : r_(config.adapter_dim),
        d_(site.width),
        tasks_(config.num_tasks),
        task_(config.task),
        layer_(site.layer),
        position_(site.role == HiddenRole::feed_forward ? 0 : 1),
        with_position_(with_position),
        activation_(config.non_linearity),
        net_("hyper", context) {
    const Index t = config.task_embedding_dim, h = config.task_hidden_dim,
                p = config.projected_task_embedding_dim;
    if (layer_ < 0 || layer_ >= site.model.layers)
      throw ValueError(concat("HyperFormer: ", site.path, " is in no layer of the model"));
    const auto affine = [&](const std::string& name, Index out, Index in) {
      net_.normal(name + ".weight", {out, in}, 0.01);
      net_.constant(name + ".bias", {out}, 0);
    };
    net_.normal("task_embeddings", {config.num_tasks, t}, 1);
    net_.normal("layer_embeddings", {site.model.layers, t}, 1);
    if (with_position) net_.normal("position_embeddings", {2, t}, 1);
    affine("projector.0", h, (with_position ? 3 : 2) * t);
    affine("projector.2", p, h);
    net_.constant("projector_norm.weight", {p}, 1);
    net_.constant("projector_norm.bias", {p}, 0);
    set_ = with_position ? "" : position_ == 0 ? "ffn." : "attention.";
    affine(set_ + "down_weight", r_ * d_, p);
    affine(set_ + "down_bias", r_, p);
    affine(set_ + "up_weight", d_ * r_, p);
    affine(set_ + "up_bias", d_, p);
    affine(set_ + "norm_weight", d_, p);
    affine(set_ + "norm_bias", d_, p);
    net_.close();
  }
  BasicVar<T> apply(const BasicVar<T>&, const BasicVar<T>& output, const BasicVar<T>&) const {
    auto& tape = output.tape();
    const auto [down, down_bias, up, up_bias, weight, bias] = generated(tape, task_);
    const auto h = detail::apply_activation(
        activation_, add(matmul(output, down, Transpose::no, Transpose::yes), down_bias));
    const auto y = add(matmul(h, up, Transpose::no, Transpose::yes), up_bias);
    return add(layer_norm(y, weight, bias, static_cast<T>(1e-5)), output);
  }
  std::vector<AdapterTensor<T>> tensors() const { return net_.tensors(); }

  /// The plain adapter of a task at this site: D [r, d], b_D, U [d, r], b_U and γ, β of its norm.
  /// @throws ValueError for a task that does not exist
  std::vector<BasicTensor<T>> exported(Index task) const {
    if (task < 0 || task >= tasks_)
      throw ValueError(concat("HyperFormer: task ", task, " of ", tasks_));
    BasicTape<T> tape({.gradients = false, .training = false});
    std::vector<BasicTensor<T>> list;
    for (const auto& var : generated(tape, task)) list.push_back(var.value().clone());
    return list;
  }

 private:
  /// D, b_D, U, b_U, γ, β of a task at this site.
  std::array<BasicVar<T>, 6> generated(BasicTape<T>& tape, Index task) const {
    const auto in = embedding(tape, task);
    const auto generate = [&](const char* name, const Shape& shape) {
      return reshape(net_.affine(set_ + name, in), shape);
    };
    return {generate("down_weight", {r_, d_}), generate("down_bias", {r_}),
            generate("up_weight", {d_, r_}),   generate("up_bias", {d_}),
            generate("norm_weight", {d_}),     generate("norm_bias", {d_})};
  }
  BasicVar<T> embedding(BasicTape<T>& tape, Index task) const {
    const auto row = [&](const char* name, Index i) {
      return slice(net_.var(tape, name), 0, i, 1);
    };
    std::vector<BasicVar<T>> parts = {row("task_embeddings", task),
                                      row("layer_embeddings", layer_)};
    if (with_position_) parts.push_back(row("position_embeddings", position_));
    const auto h = relu(net_.affine("projector.0", concat_along(1, parts)));
    return net_.norm("projector_norm", net_.affine("projector.2", h), 1e-6);
  }

  Index r_, d_, tasks_, task_, layer_, position_;
  bool with_position_;
  std::string activation_, set_;
  detail::SharedNetwork<T> net_;
};

/// HyperFormer and HyperFormer++: the Houlsby adapters of all tasks and layers come out of one
/// small network, I = LN(ReLU([z; l; p] A₁ᵀ + a₁) A₂ᵀ + a₂), D = reshape(I G_Dᵀ + g_D) and so on;
/// m' = LN_{γ,β}(φ(m Dᵀ + b_D) Uᵀ + b_U) + m at the end of the attention and the feed-forward
/// sublayer.
///
/// z, l, p: embeddings [t] of task, layer and position; HyperFormer has no p and one set of
/// generators a position. Trained: (1 + k) (2 d r + r + 3 d) a set for I: [k], the projector and
/// the embeddings, whatever the number of layers. Near the identity at the start (generators N(0,
/// 0.01)). Not mergeable; `exported` gives the plain adapter of a task. Source: Karimi Mahabadi et
/// al. 2021 (arXiv:2106.04489), section 2. Tensors: shared.hyper.{task, layer,
/// position}_embeddings, projector.{0, 2}, projector_norm, {ffn., attention.}{down, up,
/// norm}_{weight, bias}.{weight, bias}.
template <std::floating_point T, class ConfigType>
struct HyperFormerMethod {
  using Scalar = T;
  using Config = ConfigType;
  static constexpr bool kByRole = true;
  static constexpr bool kPlusPlus = std::is_same_v<Config, HyperFormerPlusPlusConfig>;
  static MethodInfo info() {
    return {.peft_type = Config::kPeftType,
            .name = kPlusPlus ? "HyperFormer++" : "HyperFormer",
            .family = "bottleneck",
            .paper = "arXiv:2106.04489",
            .sites = "hidden",
            .parameters = "; (1 + k) (2 d r + r + 3 d) in all",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static bool trains_norms(const Config& config) { return config.train_layer_norm; }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!detail::placed_at({"attention", "feed_forward"}, site.role)) return nullptr;
    return hidden_part(BasicHyperFormer<T>(config, kPlusPlus, site, context));
  }
  static std::shared_ptr<NormPart<T>> norm(const Config&, const NormSiteInfo<T>& site,
                                           InitContext<T>&) {
    return std::make_shared<FullNorm<T>>(site.norm);
  }
};

}  // namespace graft::inline v0_1
