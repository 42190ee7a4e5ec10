#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/selection/sparse_delta.hpp"

namespace graft::inline v0_1 {

/// Configuration of LT-SFT.
struct LTSFTConfig {
  Index num_tunable_weights = 0;
  double l1_regularisation = 0.1;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LT_SFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_tunable_weights", num_tunable_weights);
    v("l1_regularisation", l1_regularisation);
    v("target_modules", target_modules);
    select.fields(v);
  }
};

namespace selection {

/// The k places of all matrices together that full fine-tuning moved most, |tuned − pretrained|.
template <std::floating_point T>
std::vector<Places> most_moved(const std::vector<BasicTensor<T>>& pretrained,
                               const std::vector<BasicTensor<T>>& tuned, Index k) {
  std::vector<BasicTensor<T>> scores;
  for (std::size_t i = 0; i < pretrained.size(); ++i) {
    auto s = BasicTensor<T>::empty(pretrained[i].shape());
    for (Index j = 0; j < s.size(); ++j) s[j] = std::abs(tuned[i][j] - pretrained[i][j]);
    scores.push_back(std::move(s));
  }
  return best_of_all(scores, k);
}

}  // namespace selection

/// A sparse change with l1 Σ |value| in the loss; the gradient at 0 is 0.
template <std::floating_point T>
class BasicLTSFT : public BasicSparseDelta<T> {
 public:
  BasicLTSFT(const LTSFTConfig& config, const LinearSiteInfo<T>& site)
      : BasicSparseDelta<T>(site), l1_(static_cast<T>(config.l1_regularisation)) {}
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    if (l1_ == T{0} || this->values().size() == 0) return {};
    return scale(sum(abs(tape.parameter(this->values()))), l1_);
  }

 private:
  T l1_;
};

/// LT-SFT, the lottery ticket of sparse fine-tuning: the weights that full fine-tuning moves most
/// are trained once more from the start, the others stay.
///
/// Two runs: a full one (method FULL) for a few epochs, then this one with the places of
/// selection::most_moved, given to `select` of the parts; a new adapter has no places and trains
/// nothing until then. Trained: num_tunable_weights of all matrices. The identity at the start;
/// merges; several add up. Source: Ansell et al. 2022 (arXiv:2110.07560), section 3. Deviation: l1
/// weighs the plain sum, the released code the mean.
template <std::floating_point T>
struct LTSFTMethod {
  using Scalar = T;
  using Config = LTSFTConfig;
  static MethodInfo info() {
    return {.peft_type = "LT_SFT",
            .name = "LT-SFT",
            .family = "selection",
            .paper = "arXiv:2110.07560",
            .sites = "linear, conv",
            .parameters = "; num_tunable_weights in all",
            .in_peft = false,
            .starts_empty =
                "a run of full fine-tuning comes first; what it moved most (selection::most_moved) "
                "is given to select of the parts"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>&) {
    return linear_part(BasicLTSFT<T>(config, site));
  }
};

}  // namespace graft::inline v0_1
