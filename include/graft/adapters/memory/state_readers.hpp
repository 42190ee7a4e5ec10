#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/memory/side_tuning.hpp"
#include "graft/autograd/ops/norm.hpp"

namespace graft::inline v0_1::detail {

/// g_i = LN(h_i P_iᵀ + p_i): one projection and LayerNorm (eps 1e-5) for each of several hidden
/// states; h_i: [..., width], g_i: [..., mapping]. Trained: states · mapping (width + 3).
template <std::floating_point T>
class StateReaders {
 public:
  StateReaders(Index states, Index mapping, Index width, InitContext<T>& context) {
    for (Index i = 0; i < states; ++i) {
      weight_.push_back(linear_default(context, {mapping, width}, width));
      bias_.push_back(linear_default(context, {mapping}, width));
      norm_weight_.push_back(constant<T>({mapping}, 1));
      norm_bias_.push_back(constant<T>({mapping}, 0));
    }
  }
  /// @throws ValueError for another number of states.
  std::vector<BasicVar<T>> operator()(const char* method,
                                      const std::vector<BasicVar<T>>& states) const {
    if (states.size() != weight_.size())
      throw ValueError(
          concat(method, ": ", states.size(), " hidden states, expected ", weight_.size()));
    std::vector<BasicVar<T>> read;
    for (std::size_t i = 0; i < states.size(); ++i)
      read.push_back(norm(trained_linear(states[i], weight_[i], bias_[i]), norm_weight_[i],
                          norm_bias_[i], static_cast<T>(1e-5)));
    return read;
  }
  void list(const std::string& prefix, std::vector<AdapterTensor<T>>& tensors) const {
    for (std::size_t i = 0; i < weight_.size(); ++i) {
      tensors.push_back(shared_tensor(concat(prefix, ".down.", i, ".weight"), weight_[i]));
      tensors.push_back(shared_tensor(concat(prefix, ".down.", i, ".bias"), bias_[i]));
      tensors.push_back(
          shared_tensor(concat(prefix, ".down_norm.", i, ".weight"), norm_weight_[i]));
      tensors.push_back(shared_tensor(concat(prefix, ".down_norm.", i, ".bias"), norm_bias_[i]));
    }
  }
  static BasicVar<T> norm(const BasicVar<T>& x, const BasicParameter<T>& weight,
                          const BasicParameter<T>& bias, T eps) {
    return layer_norm(x, x.tape().parameter(weight), x.tape().parameter(bias), eps);
  }

 private:
  std::vector<BasicParameter<T>> weight_, bias_, norm_weight_, norm_bias_;
};

}  // namespace graft::inline v0_1::detail
