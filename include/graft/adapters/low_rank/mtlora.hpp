#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/norm.hpp"

namespace graft::inline v0_1 {

/// Configuration of MTLoRA.
struct MTLoRAConfig {
  std::map<std::string, Index> ranks = {{"shared", 8}};  ///< r: of the shared pair and of each task
  std::string shared_mode = "matrix";  ///< matrix, matrixv2 (tasks on top of the shared pair), or
                                       ///< addition (the tasks' sum in place of a shared pair)
  double shared_scale = 4;             ///< as it is, not over the rank
  double task_scale = 4;
  bool trainable_scale = false;
  double dropout = 0;  ///< on the input of the branch, while training; the original: 0.05
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "MTLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", ranks);
    v("shared_mode", shared_mode);
    v("lora_shared_scale", shared_scale);
    v("lora_task_scale", task_scale);
    v("trainable_scale", trainable_scale);
    v("lora_dropout", dropout);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for ranks below one, an unknown mode, or tasks missing.
  void validate() const {
    for (const auto& [name, r] : ranks)
      if (r < 1) throw ValueError(concat("MTLoRA: r ", r, " of ", name, ", expected at least 1"));
    if (shared_mode != "matrix" && shared_mode != "matrixv2" && shared_mode != "addition")
      throw ValueError(
          concat("MTLoRA: shared_mode '", shared_mode, "', expected matrix, matrixv2 or addition"));
    if (shared_mode != "addition" && !ranks.contains("shared"))
      throw ValueError("MTLoRA: r has no entry 'shared'");
    if (shared_mode == "addition" && ranks.size() == ranks.count("shared"))
      throw ValueError("MTLoRA: mode addition without a task in r");
  }
};

/// MTLoRA: one low-rank update for all tasks and one for each: with p = base(x),
///
///     matrix:    y = p + s · drop(x) Aᵀ Bᵀ,  y_t = p + s_t · x_t A_tᵀ B_tᵀ
///     matrixv2:  y_t has the shared term too
///     addition:  y = p + LayerNorm(Σ_t y_t), y_t as in matrix, no shared pair
///
/// A: [r, in] ~ U(±1/√in), B: [out, r], zero, scales as numbers or trained; trained: (r + Σ_t
/// r_t)(in + out), and a scalar for each scale, or (Σ_t r_t)(in + out) + 2 out with addition.
/// `apply` gives the shared output, `outputs` all; x_t is the task's own input where it has one
/// (not dropped again), else drop(x). The shared output starts as the identity and merges but with
/// addition; a task's path on the shared input merges as `task`. Source: Agiza et al. 2024
/// (arXiv:2403.20320), and the authors' code for the modes. Tensors: lora_shared_A,
/// lora_shared_B, lora_tasks_A.TASK, lora_tasks_B.TASK, lora_shared_scale, lora_task_scale.TASK,
/// lora_norm.weight, lora_norm.bias.
template <std::floating_point T>
class BasicMTLoRA {
 public:
  using Scalar = T;
  using Config = MTLoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "MTLORA",
            .name = "MTLoRA",
            .family = "low_rank",
            .paper = "arXiv:2403.20320",
            .sites = "linear",
            .parameters = "; (r_shared + sum of r_task) (in + out)",
            .in_peft = false};
  }

  BasicMTLoRA(const MTLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : mode_((config.validate(), config.shared_mode)), dropout_(config.dropout) {
    const Index in = site.in_features, out = site.out_features;
    const auto make = [&](Index r, double factor) {
      Pair pair;
      pair.a = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r, in}, in));
      pair.b = BasicParameter<T>(BasicTensor<T>::zeros({out, r}));
      pair.scale = BasicParameter<T>(BasicTensor<T>::full({1}, static_cast<T>(factor)),
                                     config.trainable_scale);
      return pair;
    };
    for (const auto& [name, r] : config.ranks) {
      if (name != "shared") tasks_.emplace(name, make(r, config.task_scale));
      if (name == "shared" && mode_ != "addition") shared_ = make(r, config.shared_scale);
    }
    if (mode_ == "addition") {
      norm_weight_ = BasicParameter<T>(BasicTensor<T>::ones({out}));
      norm_bias_ = BasicParameter<T>(BasicTensor<T>::zeros({out}));
    }
  }

  /// The shared output and those of the tasks.
  struct Outputs {
    BasicVar<T> shared;
    std::map<std::string, BasicVar<T>> tasks;
  };
  /// All outputs; `inputs` holds the tasks' own inputs, where they have some. The base runs once.
  /// @throws ValueError for an input of an unknown task.
  template <Linear L>
  Outputs outputs(const L& base, const BasicVar<T>& x,
                  const std::map<std::string, BasicVar<T>>& inputs = {}) const {
    for (const auto& [name, input] : inputs)
      if (!tasks_.contains(name)) throw ValueError(concat("MTLoRA: no task '", name, "'"));
    const auto p = linear(base, x), dropped = graft::dropout(x, dropout_);
    Outputs y;
    if (shared_.a) y.shared = add(p, term(shared_, dropped));
    BasicVar<T> total;
    for (const auto& [name, pair] : tasks_) {
      const auto own = inputs.find(name);
      const auto from = mode_ == "matrixv2" ? y.shared : p;
      const auto task = add(from, term(pair, own == inputs.end() ? dropped : own->second));
      total = total ? add(total, task) : task;
      y.tasks.emplace(name, task);
    }
    if (!y.shared) {
      auto& tape = x.tape();
      y.shared = add(p, layer_norm(total, tape.parameter(norm_weight_), tape.parameter(norm_bias_),
                                   static_cast<T>(1e-5)));
    }
    return y;
  }
  /// The shared output.
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    if (mode_ == "addition") return outputs(base, x).shared;
    return low_rank(base, x, shared_);
  }
  /// The path of one task on the shared input, as an adapter of its own.
  class Task {
   public:
    using Scalar = T;
    Task(const BasicMTLoRA& method, std::string name) : method_(&method), name_(std::move(name)) {}
    template <Linear L>
    BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
      return method_->outputs(base, x).tasks.at(name_);
    }

   private:
    const BasicMTLoRA* method_;
    std::string name_;
  };
  /// Lives as long as this. @throws ValueError for an unknown task.
  Task task(const std::string& name) const {
    if (!tasks_.contains(name)) throw ValueError(concat("MTLoRA: no task '", name, "'"));
    return Task(*this, name);
  }

  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](std::string name, const BasicParameter<T>& parameter) {
      list.push_back(detail::named(std::move(name), parameter));
    };
    const auto pair = [&](const Pair& p, const std::string& a, const std::string& b,
                          const std::string& factor) {
      put(a, p.a);
      put(b, p.b);
      if (p.scale.trainable()) put(factor, p.scale);
    };
    if (shared_.a) pair(shared_, "lora_shared_A", "lora_shared_B", "lora_shared_scale");
    for (const auto& [name, p] : tasks_)
      pair(p, "lora_tasks_A." + name, "lora_tasks_B." + name, "lora_task_scale." + name);
    if (norm_weight_) {
      put("lora_norm.weight", norm_weight_);
      put("lora_norm.bias", norm_bias_);
    }
    return list;
  }
  std::string merge_reason() const {
    return mode_ == "addition" ? "MTLoRA adds a LayerNorm of the tasks' outputs" : "";
  }

 private:
  struct Pair {
    BasicParameter<T> a, b, scale;
  };
  BasicVar<T> term(const Pair& pair, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto h = matmul(x, tape.parameter(pair.a), Transpose::no, Transpose::yes);
    return matmul(mul(h, tape.parameter(pair.scale)), tape.parameter(pair.b), Transpose::no,
                  Transpose::yes);
  }
  template <Linear L>
  BasicVar<T> low_rank(const L& base, const BasicVar<T>& x, const Pair& pair) const {
    const auto dropped = graft::dropout(x, dropout_);
    if (pair.scale.trainable()) return add(linear(base, x), term(pair, dropped));
    auto& tape = x.tape();
    return linear_low_rank(base, x, dropped, tape.parameter(pair.a), tape.parameter(pair.b),
                           pair.scale.value()[0]);
  }

  std::string mode_;
  double dropout_;
  Pair shared_;
  std::map<std::string, Pair> tasks_;
  BasicParameter<T> norm_weight_, norm_bias_;
};

using MTLoRA = BasicMTLoRA<float>;

}  // namespace graft::inline v0_1
