#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// One affine map with a trained weight and bias.
template <std::floating_point T>
struct TrainedAffine {
  BasicParameter<T> weight, bias;

  static TrainedAffine normal(Index out, Index in, double std, InitContext<T>& context) {
    return {fresh<T>(context, {out, in},
                     [&](TorchGenerator& g, BasicTensor<T>& t) {
                       g.normal(t.data(), t.size(), 0, std);
                     }),
            constant<T>({out}, 0)};
  }
  BasicVar<T> operator()(const BasicVar<T>& x) const { return affine(x, weight, bias); }
  void list(const std::string& name, std::vector<AdapterTensor<T>>& tensors) const {
    tensors.push_back(named(name + ".weight", weight));
    tensors.push_back(named(name + ".bias", bias));
  }
};

}  // namespace detail

/// A(h) = φ(h Dᵀ + b_D) Uᵀ + b_U, the module inside of bottleneck adapters.
///
/// D: [r, in], U: [out, r]; trained: r in + out r + r + out. Tensors: adapter_down.weight,
/// adapter_down.bias, adapter_up.weight, adapter_up.bias.
template <std::floating_point T>
class BasicBottleneck {
 public:
  using Scalar = T;
  /// How D and U begin; biases are zero.
  enum class Start {
    normal,  ///< both N(0, 0.02): near the identity
    zero_up  ///< D Kaiming-uniform, U = 0: the identity
  };

  /// @param dropout  of φ's result, while training
  BasicBottleneck(Index in, Index out, Index width, std::string activation, Start start,
                  InitContext<T>& context, double dropout = 0)
      : activation_(std::move(activation)), dropout_(dropout) {
    const double bound = kaiming_uniform_bound(in, std::sqrt(5.0));
    const auto layer = [&](Index to, Index from, bool up) {
      return detail::TrainedAffine<T>{detail::fresh<T>(context, {to, from},
                                                       [&](TorchGenerator& g, BasicTensor<T>& t) {
                                                         if (start == Start::normal)
                                                           g.normal(t.data(), t.size(), 0, 0.02);
                                                         else if (!up)
                                                           g.uniform(t.data(), t.size(), -bound,
                                                                     bound);
                                                       }),
                                      detail::constant<T>({to}, 0)};
    };
    down_ = layer(width, in, false);
    up_ = layer(out, width, true);
  }

  BasicVar<T> operator()(const BasicVar<T>& h) const {
    return up_(dropout(detail::apply_activation(activation_, down_(h)), dropout_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    down_.list("adapter_down", list);
    up_.list("adapter_up", list);
    return list;
  }
  std::string merge_reason() const {
    return detail::is_identity(activation_) ? "" : "a bottleneck with an activation is not linear";
  }

 private:
  std::string activation_;
  double dropout_;
  detail::TrainedAffine<T> down_, up_;
};

}  // namespace graft::inline v0_1
