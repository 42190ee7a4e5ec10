#pragma once

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
  BasicVar<T> operator()(const BasicVar<T>& x) const {
    auto& tape = x.tape();
    return add(matmul(x, tape.parameter(weight), Transpose::no, Transpose::yes),
               tape.parameter(bias));
  }
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

  BasicBottleneck(Index in, Index out, Index width, std::string activation, Start start,
                  InitContext<T>& context)
      : activation_(std::move(activation)) {
    const auto normal = [](TorchGenerator& g, BasicTensor<T>& t) {
      g.normal(t.data(), t.size(), 0, 0.02);
    };
    const double bound = kaiming_uniform_bound(in, std::sqrt(5.0));
    down_ = detail::fresh<T>(context, {width, in}, [&](TorchGenerator& g, BasicTensor<T>& t) {
      if (start == Start::normal)
        normal(g, t);
      else
        g.uniform(t.data(), t.size(), -bound, bound);
    });
    up_ = detail::fresh<T>(context, {out, width}, [&](TorchGenerator& g, BasicTensor<T>& t) {
      if (start == Start::normal) normal(g, t);
    });
    down_bias_ = detail::constant<T>({width}, 0);
    up_bias_ = detail::constant<T>({out}, 0);
  }

  BasicVar<T> operator()(const BasicVar<T>& h) const {
    auto& tape = h.tape();
    const auto inner = detail::apply_activation(
        activation_, add(matmul(h, tape.parameter(down_), Transpose::no, Transpose::yes),
                         tape.parameter(down_bias_)));
    return add(matmul(inner, tape.parameter(up_), Transpose::no, Transpose::yes),
               tape.parameter(up_bias_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    return {detail::named("adapter_down.weight", down_),
            detail::named("adapter_down.bias", down_bias_), detail::named("adapter_up.weight", up_),
            detail::named("adapter_up.bias", up_bias_)};
  }
  std::string merge_reason() const {
    return detail::is_identity(activation_) ? "" : "a bottleneck with an activation is not linear";
  }

 private:
  std::string activation_;
  BasicParameter<T> down_, down_bias_, up_, up_bias_;
};

}  // namespace graft::inline v0_1
