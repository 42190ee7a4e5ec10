#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/adapters/part.hpp"

namespace graft::inline v0_1 {

/// What a list of methods shows of one.
struct MethodInfo {
  std::string_view peft_type;   ///< "LORA"; key of configurations and of the registry
  std::string_view name;        ///< "LoRA"
  std::string_view family;      ///< folder: "low_rank"
  std::string_view paper;       ///< "arXiv:2106.09685"
  std::string_view sites;       ///< "linear, embedding, conv"
  std::string_view parameters;  ///< trained elements a site: "r (in + out)"
  /// With its default configuration it can be folded into the weights …
  bool mergeable = true;
  std::string_view merge_unless = "";  ///< … and with others, unless this is so; empty: in general
  bool in_peft = true;                 ///< Hugging Face PEFT reads and writes its files
  /// What files put before the path of a module; prompt methods wrap the model once less.
  std::string_view path_prefix = "base_model.model.";
  /// With its default configuration a new adapter leaves the results of the model as they are.
  bool identity_at_init = true;
  /// The gradients are those of the function that is computed; false: they go through steps and
  /// masks as if these were not there (straight-through).
  bool exact_gradient = true;
  /// Several active adapters of it act together; false: the last one takes the place of the others.
  bool adds_up = true;
  /// Why a new adapter trains nothing, and what has to come first; empty: it trains.
  std::string_view starts_empty = "";
  /// Trained elements of an embedding [in rows, out columns], where these are not `parameters`.
  std::string_view embedding_parameters = "";
  /// A dropout of the configuration that has no effect with its defaults, as in PEFT.
  std::string_view unused_dropout = "";
  /// What comes out for one row of a batch does not depend on the others.
  bool rows_apart = true;
};

/// Steps of a training run, as procedures see them. Steps count from 1.
struct StepInfo {
  Index step = 0;
  Index total_steps = 0;
  double learning_rate = 0;
  /// Mean loss of the step's batches with the adapters as they are now, without gradients; null
  /// where whoever runs the steps does not give it.
  std::function<double()> loss = {};
  /// Before any schedule; 0 where whoever runs the steps does not give it.
  double full_learning_rate = 0;
  /// After the step: what the optimiser took the gradients times (clipping); they lie there without
  /// it.
  double gradient_scale = 1;
};

/// A part with the path of its site.
template <std::floating_point T>
struct PlacedPart {
  std::string path;
  std::shared_ptr<AdapterPart<T>> part;
};

/// Those of the parts that are of one method, in their order.
template <class Method, std::floating_point T>
std::vector<Method*> methods_of(const std::vector<PlacedPart<T>>& parts) {
  std::vector<Method*> list;
  for (const auto& placed : parts)
    if (auto* method = method_of<Method>(placed.part.get())) list.push_back(method);
  return list;
}

/// What a method does while it is trained (rank budgets, mask updates); made once for an adapter
/// over all its parts.
template <std::floating_point T>
class Procedure {
 public:
  virtual ~Procedure() = default;
  virtual void before_step(const StepInfo&) {}
  virtual void after_backward(const StepInfo&) {}
  /// After the optimiser moved the parameters, before gradients are dropped.
  virtual void after_step(const StepInfo&) {}
  /// Fields of the saved configuration that the procedure decides.
  virtual void update_config(ConfigValue::Map&) const {}
  /// Numbers that the procedure carries from step to step beside the tensors of its parts, by name.
  /// A run that goes on from a checkpoint gets them back, after the tensors.
  virtual std::map<std::string, std::vector<double>> state() const { return {}; }
  virtual void set_state(const std::map<std::string, std::vector<double>>&) {}
};

/// What a method descriptor is told about an attention site and about the model.
template <std::floating_point T>
struct AttentionSiteInfo {
  std::string path;
  Index layer = 0, heads = 1, kv_heads = 1, head_dim = 1;
  AttentionRole role = AttentionRole::self;
  ModelInfo model;
  std::vector<std::string> all_sites;  ///< paths of every attention of this adapter, in order
};
template <std::floating_point T>
struct NormSiteInfo {
  std::string path;
  BasicNorm<T> norm;
  Index width = 0;
};
template <std::floating_point T>
struct HiddenSiteInfo {
  std::string path;
  Index width = 0;
  Index layer = -1;
  ModelInfo model;
  HiddenRole role = HiddenRole::block;
  std::string output = "";  ///< the sublayer's last linear layer, below the path
  /// The normalisation of the residual sum that follows; null: none. Outlives the adapter.
  const BasicNormSite<T>* norm = nullptr;
};
template <std::floating_point T>
struct PromptSiteInfo {
  std::string path;
  Index dim = 0;
  ModelInfo model;
  /// Rows of the frozen embedding for given ids, for inits from text.
  std::function<BasicTensor<T>(std::span<const std::int32_t>)> embed;
};

/// Descriptor of a method with one class for linear sites: `M` has `Config`, a constructor
/// (config, LinearSiteInfo, InitContext) and `static MethodInfo info()`.
///
/// A descriptor of a method's own may have, besides `Config` and `info()`, any of the static
/// functions `linear`, `embedding`, `norm`, `hidden`, `attention`, `prompt` (each: config, site
/// info, InitContext -> shared pointer to a part, null: not here), `targets(config, path)` in place
/// of `target_modules`, `target_modules(config)` in place of the field, `kEverySite` if it goes
/// everywhere but to output layers where no targets are given, and
/// `procedure(config, parts) -> unique_ptr<Procedure>`. With
/// `trains_norms(config)` in it, `norm` is asked for all norms of the model or for none, whatever
/// the targets. With a true constant `kByRole` a configuration without target modules means every
/// site, and the functions choose by what a site is. A true constant `kOwnModules` says that the
/// modules follow from the method though it takes target modules. `example() -> Config` gives a
/// configuration for small layers where the default one needs large ones or leaves a choice open.
template <class M>
struct LinearMethod {
  using Scalar = typename M::Scalar;
  using Config = typename M::Config;
  static MethodInfo info() { return M::info(); }
  static std::shared_ptr<LinearPart<Scalar>> linear(const Config& config,
                                                    const LinearSiteInfo<Scalar>& site,
                                                    InitContext<Scalar>& context) {
    return linear_part(M(config, site, context));
  }
  static Config example()
    requires requires { M::example(); }
  {
    return M::example();
  }
};

/// A list of method descriptors.
template <class... Methods>
struct MethodList {};

}  // namespace graft::inline v0_1
