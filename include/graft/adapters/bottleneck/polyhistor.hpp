#pragma once

#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"
#include "graft/adapters/bottleneck/shared_network.hpp"

namespace graft::inline v0_1 {

/// Configuration of Polyhistor. Polyhistor-Lite has the same fields.
struct PolyhistorConfig {
  Index base_dim = 0;  ///< a, of the template; 0: the greatest that divides all widths
  Index adapter_dim = 32;
  Index rank = 8;                  ///< k, of the template
  Index embedding_dim = 64;        ///< e, even: half for the task, half for the layer
  std::vector<Index> scales = {};  ///< width over base_dim, of each layer; empty: from the widths
  Index num_tasks = 1;
  Index task = 0;                     ///< the one that runs, from 0
  TargetModules target_modules = {};  ///< linear layers; none: behind every feed-forward sublayer
  Selection select = {};

  static constexpr const char* kPeftType = "POLYHISTOR";

  template <class Visitor>
  void fields(Visitor& v) {
    v("base_dim", base_dim);
    v("adapter_dim", adapter_dim);
    v("rank", rank);
    v("embedding_dim", embedding_dim);
    v("scales", scales);
    v("num_tasks", num_tasks);
    v("task", task);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one, an odd embedding_dim, a task that does not exist.
  void validate() const {
    if (base_dim < 0 || adapter_dim < 1 || rank < 1)
      throw ValueError(concat("Polyhistor: base_dim ", base_dim, ", adapter_dim ", adapter_dim,
                              ", rank ", rank, ", expected at least 0, 1 and 1"));
    if (embedding_dim < 2 || embedding_dim % 2 != 0)
      throw ValueError(
          concat("Polyhistor: embedding_dim ", embedding_dim, ", expected an even number"));
    for (const Index s : scales)
      if (s < 1) throw ValueError(concat("Polyhistor: a scale of ", s, ", expected at least 1"));
    if (task < 0 || task >= num_tasks)
      throw ValueError(concat("Polyhistor: task ", task, " of ", num_tasks));
  }
};
struct PolyhistorLiteConfig : PolyhistorConfig {
  static constexpr const char* kPeftType = "POLYHISTOR_LITE";
};

/// The bottleneck of one layer, generated from embeddings of task and layer.
template <std::floating_point T>
class BasicPolyhistor {
 public:
  using Scalar = T;

  /// @param layer  number of the layer among `layers`  @param base_dim  width of the template
  BasicPolyhistor(const PolyhistorConfig& config, bool lite, Index width, Index layer, Index layers,
                  Index base_dim, InitContext<T>& context)
      : a_(base_dim),
        k_(config.rank),
        n_(config.adapter_dim),
        s_(width / base_dim),
        task_(config.task),
        layer_(layer),
        net_("polyhistor", context) {
    if (layer < 0 || layer >= layers)
      throw ValueError(concat("Polyhistor: layer ", layer, " of ", layers));
    if (!config.scales.empty()) {
      if (std::ssize(config.scales) != layers)
        throw ValueError(
            concat("Polyhistor: ", config.scales.size(), " scales for ", layers, " layers"));
      s_ = config.scales[static_cast<std::size_t>(layer)];
    }
    if (a_ * s_ != width)
      throw ShapeError(concat("Polyhistor: layer ", layer, " has a width of ", width, ", expected ",
                              s_, " times base_dim ", a_));
    const Index half = config.embedding_dim / 2;
    net_.normal("task_embeddings", {config.num_tasks, half}, 0.02);
    net_.normal("layer_embeddings", {layers, half}, 0.02);
    const double bound = 1 / std::sqrt(static_cast<double>(2 * half));
    for (const std::string side : {"down", "up"}) {
      net_.uniform(side + "_P", {a_ * k_, 2 * half}, bound);
      if (side == "down")
        net_.uniform(side + "_Q", {k_ * n_, 2 * half}, bound);
      else
        net_.constant(side + "_Q", {k_ * n_, 2 * half}, 0);
      if (lite) net_.constant(concat(side, "_kernel.", s_), {s_, 1}, 1);
      auto& kernel = side == "down" ? down_kernel_ : up_kernel_;
      kernel = lite ? net_.at(concat(side, "_kernel.", s_)) : detail::constant<T>({s_, 1}, 1);
    }
    lite_ = lite;
    net_.close();
    down_bias_ = detail::constant<T>({n_}, 0);
    up_bias_ = detail::constant<T>({width}, 0);
  }
  BasicVar<T> operator()(const BasicVar<T>& h) const {
    auto& tape = h.tape();
    const auto inner = gelu(add(matmul(h, matrix(tape, true)), tape.parameter(down_bias_)));
    return add(matmul(inner, matrix(tape, false), Transpose::no, Transpose::yes),
               tape.parameter(up_bias_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    auto list = net_.tensors();
    if (!lite_) {
      list.push_back(detail::named("polyhistor_down_kernel", down_kernel_));
      list.push_back(detail::named("polyhistor_up_kernel", up_kernel_));
    }
    list.push_back(detail::named("adapter_down.bias", down_bias_));
    list.push_back(detail::named("adapter_up.bias", up_bias_));
    return list;
  }
  std::string merge_reason() const { return "a bottleneck with an activation is not linear"; }

  /// D [n, width] and U [width, n] of a plain adapter that computes the same.
  std::pair<BasicTensor<T>, BasicTensor<T>> exported() const {
    BasicTape<T> tape({.gradients = false, .training = false});
    return {transpose(matrix(tape, true)).value().clone(), matrix(tape, false).value().clone()};
  }

 private:
  /// K ⊗ (P Q), [width, n].
  BasicVar<T> matrix(BasicTape<T>& tape, bool down) const {
    const std::string side = down ? "down" : "up";
    const auto v = concat_along(
        1, std::vector<BasicVar<T>>{slice(net_.var(tape, "task_embeddings"), 0, task_, 1),
                                    slice(net_.var(tape, "layer_embeddings"), 0, layer_, 1)});
    const auto generate = [&](const std::string& name, const Shape& shape) {
      return reshape(matmul(v, net_.var(tape, name), Transpose::no, Transpose::yes), shape);
    };
    const auto pattern = matmul(generate(side + "_P", {a_, k_}), generate(side + "_Q", {k_, n_}));
    const auto kernel = reshape(tape.parameter(down ? down_kernel_ : up_kernel_), {s_, 1, 1});
    return reshape(mul(kernel, reshape(pattern, {1, a_, n_})), {s_ * a_, n_});
  }

  Index a_, k_, n_, s_, task_, layer_;
  bool lite_ = false;
  detail::SharedNetwork<T> net_;
  BasicParameter<T> down_kernel_, up_kernel_, down_bias_, up_bias_;
};

/// Polyhistor and Polyhistor-Lite: y = h + GELU(h Dᵀ + b_D) Uᵀ + b_U, the matrices of all tasks and
/// layers out of small factors: v = [z_τ; l_ℓ], P = reshape(G_P v), Q = reshape(G_Q v), Dᵀ = K_ℓ ⊗
/// (P Q), U alike with generators of its own.
///
/// z, l: [e / 2], P: [a, k], Q: [k, n], K_ℓ: [s_ℓ, 1], widths a s_ℓ. Trained for all layers: 2 e (a
/// k + k n) + e / 2 (tasks + layers); a layer: n + a s_ℓ, and 2 s_ℓ for its kernels, which in Lite
/// all layers of one width share. The identity at the start (G_Q of the up side is 0, K is 1). Not
/// mergeable; `exported` gives plain matrices. Source: Liu et al. 2022 (arXiv:2210.03265), section
/// 3. The generators without zeros begin uniform in ±1/√e, embeddings N(0, 0.02): the paper does
/// not say. In models the layers are the blocks, each with one adapter behind its feed-forward
/// sublayer; else the linear layers that `target_modules` names, in their order. Tensors:
/// shared.polyhistor.{task_embeddings, layer_embeddings, {down, up}_{P, Q}},
/// polyhistor_{down, up}_kernel or shared.polyhistor.{down, up}_kernel.`<scale>`,
/// adapter_{down, up}.bias.
template <std::floating_point T, class ConfigType>
struct PolyhistorMethod {
  using Scalar = T;
  using Config = ConfigType;
  using Module = BasicPolyhistor<T>;
  static constexpr bool kByRole = true;
  static constexpr bool kLite = std::is_same_v<Config, PolyhistorLiteConfig>;
  static MethodInfo info() {
    return {.peft_type = Config::kPeftType,
            .name = kLite ? "Polyhistor-Lite" : "Polyhistor",
            .family = "bottleneck",
            .paper = "arXiv:2210.03265",
            .sites = "hidden, linear",
            .parameters = "; n + d + 2 d / a a layer, 2 e k (a + n) in all",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty()) return nullptr;
    Index base = config.base_dim, number = -1;
    for (std::size_t i = 0; i < site.all_sites.size(); ++i) {
      if (site.all_sites[i].first == site.path) number = static_cast<Index>(i);
      if (config.base_dim == 0) base = std::gcd(base, site.all_sites[i].second[0]);
    }
    return linear_part(SerialAdapter<Module>(Module(config, kLite, site.out_features, number,
                                                    std::ssize(site.all_sites), base, context)));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!config.target_modules.empty() || site.role != HiddenRole::feed_forward) return nullptr;
    // Sites outside of numbered blocks (stages of a network of one's own) count in their order.
    const auto next = context.shared.object("polyhistor.next", [] { return Index{0}; });
    const Index number = site.layer >= 0 ? site.layer : (*next)++;
    const Index layers = site.layer >= 0 ? site.model.layers : std::ssize(config.scales);
    return hidden_part(
        SerialAdapter<Module>(Module(config, kLite, site.width, number, layers,
                                     config.base_dim > 0 ? config.base_dim : site.width, context)));
  }
};

}  // namespace graft::inline v0_1
