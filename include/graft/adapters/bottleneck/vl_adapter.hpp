#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"

namespace graft::inline v0_1 {

/// Configuration of VL-Adapter.
struct VLAdapterConfig {
  Index adapter_dim = 96;
  Index num_tasks = 1;
  /// Which half all tasks share: "single" (both), "half_shared_down", "half_shared_up", "multiple"
  /// (none).
  std::string sharing = "single";
  std::string non_linearity = "gelu_new";
  TargetModules target_modules = {};  ///< linear layers; none: behind every sublayer
  Selection select = {};

  static constexpr const char* kPeftType = "VL_ADAPTER";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("num_tasks", num_tasks);
    v("sharing", sharing);
    v("non_linearity", non_linearity);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one, an unknown sharing or activation.
  void validate() const {
    if (adapter_dim < 1 || num_tasks < 1)
      throw ValueError(concat("VL-Adapter: adapter_dim ", adapter_dim, ", num_tasks ", num_tasks,
                              ", expected at least 1"));
    if (sharing != "single" && sharing != "half_shared_down" && sharing != "half_shared_up" &&
        sharing != "multiple")
      throw ValueError(concat("VL-Adapter: sharing '", sharing,
                              "', expected \"single\", \"half_shared_down\", \"half_shared_up\" or "
                              "\"multiple\""));
    detail::require_activation("VL-Adapter", non_linearity);
  }
};

/// A_τ(h) = φ(h D_τᵀ + b) U_τᵀ + b' with matrices that tasks share or own; each row of the batch
/// runs the one of its task.
template <std::floating_point T>
class BasicVLAdapterModule {
 public:
  using Scalar = T;

  BasicVLAdapterModule(const VLAdapterConfig& config, Index width, InitContext<T>& context)
      : activation_(config.non_linearity), tasks_(config.num_tasks) {
    down_shared_ = config.sharing == "single" || config.sharing == "half_shared_down";
    up_shared_ = config.sharing == "single" || config.sharing == "half_shared_up";
    const auto make = [&](auto& list, bool shared, Index out, Index in) {
      for (Index t = 0; t < (shared ? 1 : tasks_); ++t)
        list.push_back(detail::TrainedAffine<T>::normal(out, in, 0.02, context));
    };
    make(down_, down_shared_, config.adapter_dim, width);
    make(up_, up_shared_, width, config.adapter_dim);
  }
  BasicVar<T> operator()(const BasicVar<T>& h) const {
    if (down_.size() == 1 && up_.size() == 1) return of_task(h, 0);
    const auto* context = h.tape().template context<ForwardContext>();
    if (context == nullptr || context->task_ids.empty())
      throw ValueError("VL-Adapter: the batch has no task_ids");
    const auto batch = static_cast<Index>(context->task_ids.size());
    if (h.rows() % batch != 0)
      throw ShapeError(concat("VL-Adapter: ", batch, " task_ids for ", h.shape().text()));
    const auto rows = reshape(h, {batch, h.rows() / batch, h.cols()});
    std::vector<BasicVar<T>> parts;
    std::vector<Index> position(static_cast<std::size_t>(batch), -1);
    Index placed = 0;
    for (Index task = 0; task < tasks_; ++task) {
      std::vector<Index> mine;
      for (Index b = 0; b < batch; ++b)
        if (context->task_ids[static_cast<std::size_t>(b)] == task) {
          mine.push_back(b);
          position[static_cast<std::size_t>(b)] = placed++;
        }
      if (!mine.empty()) parts.push_back(of_task(gather_rows(rows, std::move(mine)), task));
    }
    if (placed != batch)
      throw ValueError(concat("VL-Adapter: a task id is not in [0, ", tasks_, ")"));
    return reshape(
        gather_rows(parts.size() == 1 ? parts[0] : concat_along(0, parts), std::move(position)),
        h.shape());
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](const List& affine, bool shared, const char* name) {
      for (std::size_t t = 0; t < affine.size(); ++t)
        affine[t].list(
            concat("vl_adapter.", shared ? std::string("shared") : concat("task", t), ".", name),
            list);
    };
    put(down_, down_shared_, "adapter_down");
    put(up_, up_shared_, "adapter_up");
    return list;
  }
  std::string merge_reason() const { return "a bottleneck with an activation is not linear"; }

 private:
  using List = std::vector<detail::TrainedAffine<T>>;
  BasicVar<T> of_task(const BasicVar<T>& h, Index task) const {
    const auto pick = [&](const List& list) -> const detail::TrainedAffine<T>& {
      return list[list.size() == 1 ? 0 : static_cast<std::size_t>(task)];
    };
    return pick(up_)(detail::apply_activation(activation_, pick(down_)(h)));
  }

  std::string activation_;
  Index tasks_;
  bool down_shared_ = true, up_shared_ = true;
  List down_, up_;
};

/// VL-Adapter: Houlsby adapters h ← h + A_τ(h) for several tasks τ, the matrices shared by all of
/// them, half or not at all.
///
/// D: [r, d], U: [d, r]; trained a site: (1 or N) (d r + r) + (1 or N) (d r + d). Near the identity
/// at the start (N(0, 0.02), biases 0). Not mergeable. Source: Sung et al. 2022 (arXiv:2112.06825),
/// section 3.2. Tensors: vl_adapter.{shared, `task<τ>`}.{adapter_down, adapter_up}.{weight, bias}.
template <std::floating_point T>
struct VLAdapterMethod {
  using Scalar = T;
  using Config = VLAdapterConfig;
  using Module = BasicVLAdapterModule<T>;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "VL_ADAPTER",
            .name = "VL-Adapter",
            .family = "bottleneck",
            .paper = "arXiv:2112.06825",
            .sites = "hidden, linear",
            .parameters = "2 d r + r + d, r = adapter_dim; a task or shared",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty()) return nullptr;
    return linear_part(SerialAdapter<Module>(Module(config, site.out_features, context)));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!config.target_modules.empty() || site.role == HiddenRole::block) return nullptr;
    return hidden_part(SerialAdapter<Module>(Module(config, site.width, context)));
  }
};

}  // namespace graft::inline v0_1
