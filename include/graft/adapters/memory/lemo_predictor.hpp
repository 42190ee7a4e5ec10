#pragma once

#include <string>
#include <vector>

#include "graft/adapters/memory/side_tuning.hpp"

namespace graft::inline v0_1 {

/// The predictor of LeMo: which tokens carry information, told from a layer's input without its
/// scores: score = Î_q(x) Î_k(x)ᵀ, Î(x) = ReLU(ReLU(x M₁) M₂) M₃, one chain for queries and one for
/// keys.
///
/// x: [batch, tokens, d]; M₁: [d, k], M₂: [k, k], M₃: [k, o], stored so; score: [batch, tokens,
/// tokens], a number a pair of tokens (or of blocks, for their mean inputs). Trained, 2 (d k + k² +
/// k o), by regression on scores that were computed, apart from the model. For one's own training
/// code. Source: Wang et al. 2025 (arXiv:2501.09767). Deviation: neurons that nobody uses are not
/// pruned. Tensors: predictor_query.i,
/// predictor_key.i.
template <std::floating_point T>
class BasicLeMoPredictor {
 public:
  using Scalar = T;

  /// @throws ValueError for sizes below one.
  BasicLeMoPredictor(Index width, Index inner, Index out, InitContext<T>& context) {
    if (width < 1 || inner < 1 || out < 1)
      throw ValueError(concat("LeMo predictor: sizes ", width, ", ", inner, " and ", out,
                              ", expected 1 or more"));
    for (auto* chain : {&query_, &key_}) {
      chain->push_back(detail::linear_default(context, {width, inner}, width));
      chain->push_back(detail::linear_default(context, {inner, inner}, inner));
      chain->push_back(detail::linear_default(context, {inner, out}, inner));
    }
  }
  BasicVar<T> operator()(const BasicVar<T>& x) const {
    return matmul(run(x, query_), run(x, key_), Transpose::no, Transpose::yes);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t i = 0; i < 3; ++i)
      list.push_back(detail::named(concat("predictor_query.", i), query_[i]));
    for (std::size_t i = 0; i < 3; ++i)
      list.push_back(detail::named(concat("predictor_key.", i), key_[i]));
    return list;
  }

 private:
  static BasicVar<T> run(const BasicVar<T>& x, const std::vector<BasicParameter<T>>& chain) {
    auto& tape = x.tape();
    const auto h = relu(matmul(x, tape.parameter(chain[0])));
    return matmul(relu(matmul(h, tape.parameter(chain[1]))), tape.parameter(chain[2]));
  }

  std::vector<BasicParameter<T>> query_, key_;
};

using LeMoPredictor = BasicLeMoPredictor<float>;

}  // namespace graft::inline v0_1
