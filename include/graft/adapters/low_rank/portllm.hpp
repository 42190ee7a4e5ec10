#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of PortLLM's patches.
struct PortLLMConfig {
  Index rank = 8;
  double alpha = 8;
  std::vector<double> strengths = {};  ///< one a patch; those that are missing are 1
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "PORTLLM";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("strengths", strengths);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one.
  void validate() const {
    if (rank < 1) throw ValueError(concat("PortLLM: r ", rank, ", expected at least 1"));
  }
  double strength(std::size_t patch) const {
    return patch < strengths.size() ? strengths[patch] : 1.0;
  }
};

/// PortLLM: W + Σ_k c_k s B_k A_k, s = alpha / r: low-rank updates that were trained on an older
/// model, put on a newer one of the same shapes without training.
///
/// A_k: [r, in], B_k: [out, r], frozen; nothing is trained. As many patches as a file holds; made
/// new, one for each strength, all zero. Merging is the method: merged, unmerged and removed as any
/// adapter. Loading refuses modules and shapes that differ, and lists them. Source: Khan et al.
/// 2024 (arXiv:2410.10870). Tensors: patch<k>.lora_A.weight, patch<k>.lora_B.weight.
template <std::floating_point T>
class BasicPortLLM {
 public:
  using Scalar = T;
  using Config = PortLLMConfig;

  static MethodInfo info() {
    return {.peft_type = "PORTLLM",
            .name = "PortLLM",
            .family = "low_rank",
            .paper = "arXiv:2410.10870",
            .sites = "linear",
            .parameters = "0",
            .in_peft = false,
            .starts_empty = "its patches are trained as LoRA on an older model, and loaded"};
  }

  BasicPortLLM(const PortLLMConfig& config, const LinearSiteInfo<T>& site, InitContext<T>&)
      : config_(config), in_(site.in_features), out_(site.out_features) {
    config.validate();
    make(std::max<std::size_t>(1, config.strengths.size()));
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    std::vector<BasicVar<T>> a, b;
    const double scaling = config_.alpha / static_cast<double>(config_.rank);
    for (std::size_t k = 0; k < patches_.size(); ++k) {
      a.push_back(tape.parameter(patches_[k].first));
      b.push_back(
          scale(tape.parameter(patches_[k].second), static_cast<T>(config_.strength(k) * scaling)));
    }
    return linear_low_rank(base, x, x, concat_along(0, a), concat_along(1, b), T{1});
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t k = 0; k < patches_.size(); ++k)
      for (const bool first : {true, false}) {
        list.push_back(
            detail::named(concat("patch", k, first ? ".lora_A.weight" : ".lora_B.weight"),
                          first ? patches_[k].first : patches_[k].second));
      }
    return list;
  }
  void before_load(const CheckpointShapes& shapes) {
    std::size_t count = 0;
    while (shapes(concat("patch", count, ".lora_A.weight")) != nullptr) ++count;
    if (count > 0) make(count);
  }
  std::size_t patches() const { return patches_.size(); }

 private:
  void make(std::size_t count) {
    patches_.clear();
    for (std::size_t k = 0; k < count; ++k)
      patches_.emplace_back(BasicParameter<T>(BasicTensor<T>::zeros({config_.rank, in_}), false),
                            BasicParameter<T>(BasicTensor<T>::zeros({out_, config_.rank}), false));
  }

  PortLLMConfig config_;
  Index in_, out_;
  std::vector<std::pair<BasicParameter<T>, BasicParameter<T>>> patches_;
};

using PortLLM = BasicPortLLM<float>;

}  // namespace graft::inline v0_1
