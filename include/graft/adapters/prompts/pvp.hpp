#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/prompts/vpt.hpp"

namespace graft::inline v0_1 {

/// Configuration of pre-trained visual prompts.
struct PvpConfig {
  Index num_tokens = 5;
  bool deep = true;
  Index project = 0;  ///< see VptConfig
  double dropout = 0;
  Index source_classes = 1000;  ///< of the head of the first stage
  Index steps = 0;              ///< of each stage, for the record
  double learning_rate = 0;     ///< the same

  static constexpr const char* kPeftType = "PVP";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_tokens", num_tokens);
    v("deep", deep);
    v("project", project);
    v("dropout", dropout);
    v("source_classes", source_classes);
    v("steps", steps);
    v("learning_rate", learning_rate);
  }
  VptConfig prompts() const { return {num_tokens, deep, project, dropout}; }
  /// @throws ValueError for what VPT refuses or fewer than one class.
  void validate() const {
    prompts().validate();
    if (source_classes < 1 || steps < 0)
      throw ValueError(concat("PVP: source_classes ", source_classes, ", steps ", steps));
  }
};

/// One stage of PVP: new moments, then `steps` steps over the parameters of the module and a head.
/// `make(parameters)` gives the optimiser, `loss(tape)` the loss. Returns the losses before each
/// step and after the last.
///
/// Stages of PVP: this with the source data and a head for it; then, the module as it is, this with
/// the target data and a new head. The module may be any adapter.
template <std::floating_point T, class Make, class Loss>
std::vector<T> pvp_stage(std::vector<BasicParameter<T>> module,
                         const std::vector<BasicParameter<T>>& head, Index steps, Make&& make,
                         Loss&& loss) {
  module.insert(module.end(), head.begin(), head.end());
  for (const auto& p : module) p.zero_grad();
  auto optimizer = make(module);
  std::vector<T> losses;
  for (Index step = 1; step <= steps; ++step) {
    BasicTape<T> tape({.seed = static_cast<std::uint64_t>(step)});
    const auto value = loss(tape);
    losses.push_back(value.item());
    tape.backward(value);
    optimizer.step();
    optimizer.zero_grad();
  }
  BasicTape<T> tape({.gradients = false, .training = false});
  losses.push_back(loss(tape).item());
  return losses;
}

/// Pre-trained visual prompts: the prompts of VPT (deep by default), trained on a large labelled
/// set with a head of its own before they are trained on the target; see `pvp_stage`.
///
/// Trained: as VPT. Not the identity at the start; does not merge. Source: Song et al. 2023,
/// arXiv:2304.13639, section 3. Tensors: those of VPT.
template <std::floating_point T>
struct PvpMethod {
  using Scalar = T;
  using Config = PvpConfig;
  static MethodInfo info() {
    return {.peft_type = "PVP",
            .name = "Pre-trained visual prompts",
            .family = "prompts",
            .paper = "arXiv:2304.13639",
            .sites = "prompt, blocks",
            .parameters = "; num_tokens d a block",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false,
            .adds_up = false};
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    detail::place_vpt(config.prompts(), set, table, context);
  }
};

}  // namespace graft::inline v0_1
