#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/procedure_state.hpp"
#include "graft/adapters/selection/sparse_delta.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1 {

/// Configuration of SPT. Where the modules come from: spt_allocation; the tau for a budget of
/// trained elements: spt_budget_tau.
struct SPTConfig {
  Index tau = 0;  ///< number of sensitive weights
  Index rank = 8;
  std::optional<double> lora_alpha;      ///< none: r, so that the update is B A
  double alpha = 10;                     ///< structured if n ≥ size of the module / alpha
  double beta = 5;                       ///< a whole vector if n ≥ length / beta
  std::string structured_type = "lora";  ///< or "adapter"
  std::vector<std::string> structured_modules, sparse_modules;
  Index score_steps = 16;  ///< first steps, which only score, where sparse modules have no places
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SPT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("tau", tau);
    v("r", rank);
    v("lora_alpha", lora_alpha);
    v("alpha", alpha);
    v("beta", beta);
    v("structured_type", structured_type);
    v("structured_modules", structured_modules);
    v("sparse_modules", sparse_modules);
    optional_field(v, "score_steps", score_steps, Index{16});
    v("target_modules", target_modules);
    v("exclude_modules", select.exclude_modules);
  }
  /// @throws ValueError for another structured module, or lists that are empty.
  void validate() const {
    if (structured_type != "lora" && structured_type != "adapter")
      throw ValueError(
          concat("SPT: structured_type '", structured_type, "', expected lora or adapter"));
    if (rank < 1) throw ValueError(concat("SPT: r ", rank, ", expected at least 1"));
    if (structured_modules.empty() && sparse_modules.empty())
      throw ValueError(
          "SPT: structured_modules and sparse_modules are empty; spt_allocation gives them");
  }
};

/// The structured module of SPT: y = base(x) + s x Aᵀ Bᵀ. A ~ U(±1/√in), B = 0; trained: r (in +
/// out).
template <std::floating_point T>
class BasicSPTLowRank {
 public:
  using Scalar = T;

  BasicSPTLowRank(const SPTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : scaling_(config.lora_alpha
                     ? static_cast<T>(*config.lora_alpha / static_cast<double>(config.rank))
                     : T{1}) {
    const Index r = config.rank, in = site.in_features;
    a_ = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r, in}, in));
    b_ = BasicParameter<T>(BasicTensor<T>::zeros({site.out_features, r}));
  }
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    return linear_low_rank(base, x, x, tape.parameter(a_), tape.parameter(b_), scaling_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "lora_A.weight";
    list[0].parameter = a_;
    list[1].name = "lora_B.weight";
    list[1].parameter = b_;
    return list;
  }

 private:
  T scaling_;
  BasicParameter<T> a_, b_;
};

/// The structured module of SPT-Adapter, behind a layer: y' = y + GELU(y Dᵀ + d) Uᵀ + u, y =
/// base(x). D: [r, out], U: [out, r]; D, d ~ U(±1/√out), U, u = 0; trained: 2 r out + r + out. Not
/// mergeable. Its code drops elements of y and whole modules besides; here that is not done.
template <std::floating_point T>
class BasicSPTAdapter {
 public:
  using Scalar = T;
  using Config = SPTConfig;

  BasicSPTAdapter(const SPTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context) {
    if (!site.conv.kernel.empty())
      throw ValueError(concat("SPT: structured_type 'adapter' at ", site.path,
                              ", a convolution; expected a linear layer, or lora"));
    const Index r = config.rank, out = site.out_features;
    down_ = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r, out}, out));
    down_bias_ = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r}, out));
    up_ = BasicParameter<T>(BasicTensor<T>::zeros({out, r}));
    up_bias_ = BasicParameter<T>(BasicTensor<T>::zeros({out}));
  }
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto y = linear(base, x);
    return add(y, affine(gelu(affine(y, down_, down_bias_)), up_, up_bias_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    return {detail::named("adapter_down.weight", down_),
            detail::named("adapter_down.bias", down_bias_), detail::named("adapter_up.weight", up_),
            detail::named("adapter_up.bias", up_bias_)};
  }
  std::string merge_reason() const { return "a bottleneck with an activation is not linear"; }

 private:
  BasicParameter<T> down_, down_bias_, up_, up_bias_;
};

/// How SPT trains one tensor.
enum class SPTMode { frozen, structured, sparse, vector };

/// What SPT decides for one tensor: the mode, the sensitive places, and the trained elements.
struct SPTChoice {
  SPTMode mode = SPTMode::frozen;
  selection::Places places;
  Index trained = 0;
};

/// SPT's allocation from sensitivities (sums of squared gradients over batches) of matrices [out,
/// in] and vectors: of the tau most sensitive elements of all, n in a matrix make it structured if
/// n ≥ c/alpha for the size c = r (in + out) of its module (2 r out + r + out for an adapter behind
/// it), n in a vector let it be trained whole if n ≥ length/beta; others train just these elements.
/// @throws ValueError for an unknown module
template <std::floating_point T>
std::vector<SPTChoice> spt_allocation(const std::vector<BasicTensor<T>>& sensitivities, Index tau,
                                      Index rank, double alpha, double beta,
                                      const std::string& structured_type = "lora") {
  if (structured_type != "lora" && structured_type != "adapter")
    throw ValueError(
        concat("SPT: structured_type '", structured_type, "', expected lora or adapter"));
  auto places = selection::best_of_all(sensitivities, tau);
  std::vector<SPTChoice> choices(sensitivities.size());
  for (std::size_t i = 0; i < choices.size(); ++i) {
    auto& choice = choices[i];
    choice.places = std::move(places[i]);
    const auto n = static_cast<double>(choice.places.size());
    if (n == 0) continue;
    choice.mode = SPTMode::sparse;
    choice.trained = static_cast<Index>(choice.places.size());
    const auto& shape = sensitivities[i].shape();
    if (shape.rank() == 2) {
      const Index out = shape[0], in = shape[1];
      const Index size =
          structured_type == "lora" ? rank * (in + out) : 2 * rank * out + rank + out;
      if (n < static_cast<double>(size) / alpha) continue;
      choice.mode = SPTMode::structured;
      choice.trained = size;
    } else if (n >= static_cast<double>(shape.elements()) / beta) {
      choice.mode = SPTMode::vector;
      choice.trained = shape.elements();
    }
  }
  return choices;
}

/// Elements that an allocation trains.
inline Index spt_trained(const std::vector<SPTChoice>& choices) {
  Index sum = 0;
  for (const auto& choice : choices) sum += choice.trained;
  return sum;
}

/// The tau whose allocation trains most of what a budget allows: modules in place of single
/// elements make the count of an allocation differ from its tau. Of equal counts the smallest tau;
/// 0 if nothing fits. The count is no monotone function of tau, so `candidates` are all tried.
template <std::floating_point T>
Index spt_budget_tau(const std::vector<BasicTensor<T>>& sensitivities, Index budget,
                     const std::vector<Index>& candidates, Index rank, double alpha, double beta,
                     const std::string& structured_type = "lora") {
  Index tau = 0, most = 0;
  for (const Index candidate : candidates) {
    const Index count =
        spt_trained(spt_allocation(sensitivities, candidate, rank, alpha, beta, structured_type));
    if (count > budget || count < most || (count == most && candidate >= tau)) continue;
    most = count;
    tau = candidate;
  }
  return tau;
}

/// Places of sparse modules by their sensitivity in the first steps.
template <std::floating_point T>
class SPTProcedure final : public Procedure<T> {
 public:
  SPTProcedure(const SPTConfig& config, std::vector<BasicSparseDelta<T>*> deltas)
      : config_(config), deltas_(std::move(deltas)) {}
  void before_step(const StepInfo& info) override {
    if (info.step > config_.score_steps || !sums_.empty()) return;
    for (const auto* delta : deltas_)
      if (!delta->places().empty()) return;
    begin();
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (std::size_t i = 0; i < sums_.size(); ++i)
      detail::keep_values(all, std::to_string(i), sums_[i]);
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (auto* delta : deltas_) delta->observe({});
    sums_.clear();
    if (all.empty()) return;
    begin();
    for (std::size_t i = 0; i < sums_.size(); ++i)
      if (const auto sum = detail::kept_values<T>(all, std::to_string(i), sums_[i].shape()))
        std::copy_n(sum.data(), sum.size(), sums_[i].data());
  }
  void after_backward(const StepInfo& info) override {
    if (sums_.empty() || info.step < config_.score_steps) return;
    auto places = selection::best_of_all(sums_, config_.tau);
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      deltas_[i]->observe({});
      deltas_[i]->select(std::move(places[i]));
    }
    sums_.clear();
  }

 private:
  void begin() {
    for (auto* delta : deltas_) {
      sums_.push_back(BasicTensor<T>::zeros({delta->out_features(), delta->in_features()}));
      delta->observe([sum = sums_.back()](const auto& x, const auto& dy, Index) {
        selection::GradientSum<T> one(sum.rows(), sum.cols(), true);
        one.see(x, dy, 1);
        kernels::add(sum.data(), one.sum().data(), sum.data(), sum.size());
      });
    }
  }

  SPTConfig config_;
  std::vector<BasicSparseDelta<T>*> deltas_;
  std::vector<BasicTensor<T>> sums_;
};

/// SPT: sensitive weights are trained by LoRA (or an adapter) where a matrix has many, as a sparse
/// change where it has few.
///
/// Structured sites: y = base(x) + (lora_alpha / r) x Aᵀ Bᵀ, or BasicSPTAdapter; sparse sites: y =
/// base(x) + x Sᵀ with `tau` places of all sparse sites together. Trained: r (in + out) or 2 r out
/// + r + out, or the places. The identity at the start; merges where no site has an adapter.
/// Source: He et al. 2023 (arXiv:2303.08566), section 3, and its code. Tensors: lora_A.weight,
/// lora_B.weight; adapter_{down, up}.{weight, bias}; sparse_indices, sparse_values.
template <std::floating_point T>
struct SPTMethod {
  using Scalar = T;
  using Config = SPTConfig;
  static Config example() {
    Config config;
    config.structured_modules = {"proj", "q_proj"};
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "SPT",
            .name = "SPT",
            .family = "selection",
            .paper = "arXiv:2303.08566",
            .sites = "linear, conv",
            .parameters = "r (in + out); or the sensitive places",
            .in_peft = false};
  }
  static TargetModules target_modules(const Config& config) {
    auto names = config.structured_modules;
    names.insert(names.end(), config.sparse_modules.begin(), config.sparse_modules.end());
    return names;
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    config.validate();
    if (!matches(config.structured_modules, site.path))
      return linear_part(BasicSparseDelta<T>(site));
    if (config.structured_type == "adapter")
      return linear_part(BasicSPTAdapter<T>(config, site, context));
    return linear_part(BasicSPTLowRank<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<SPTProcedure<T>>(config, selection::sparse_deltas(parts));
  }
};

}  // namespace graft::inline v0_1
