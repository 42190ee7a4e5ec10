#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// Parameters of a small network that all sites of an adapter share, by their names below
/// "base_model.model.shared.<prefix>.".
template <std::floating_point T>
class SharedNetwork {
 public:
  SharedNetwork(std::string prefix, InitContext<T>& context)
      : prefix_(std::move(prefix)), context_(&context) {}

  /// A parameter that the first site makes: `draw(generator, zeros)` gives its value.
  template <class Draw>
  void drawn(const std::string& name, const Shape& shape, Draw&& draw) {
    parameters_[name] = context_->shared.get(prefix_ + "." + name, [&] {
      auto t = BasicTensor<T>::zeros(shape);
      if (!context_->loading) draw(context_->generator, t);
      return t;
    });
  }
  void normal(const std::string& name, const Shape& shape, double std) {
    drawn(name, shape,
          [std](TorchGenerator& g, BasicTensor<T>& t) { g.normal(t.data(), t.size(), 0, std); });
  }
  void uniform(const std::string& name, const Shape& shape, double bound) {
    drawn(name, shape, [bound](TorchGenerator& g, BasicTensor<T>& t) {
      g.uniform(t.data(), t.size(), -bound, bound);
    });
  }
  void constant(const std::string& name, const Shape& shape, double value) {
    parameters_[name] = context_->shared.get(
        prefix_ + "." + name, [&] { return BasicTensor<T>::full(shape, static_cast<T>(value)); });
  }
  /// Nothing may be made afterwards.
  void close() { context_ = nullptr; }

  const BasicParameter<T>& at(const std::string& name) const { return parameters_.at(name); }
  BasicVar<T> var(BasicTape<T>& tape, const std::string& name) const {
    return tape.parameter(parameters_.at(name));
  }
  /// x Wᵀ + b with the parameters name.weight and name.bias.
  BasicVar<T> affine(const std::string& name, const BasicVar<T>& x) const {
    return graft::affine(x, at(name + ".weight"), at(name + ".bias"));
  }
  /// LayerNorm with name.weight and name.bias.
  BasicVar<T> norm(const std::string& name, const BasicVar<T>& x, double eps) const {
    auto& tape = x.tape();
    return layer_norm(x, var(tape, name + ".weight"), var(tape, name + ".bias"),
                      static_cast<T>(eps));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (const auto& [name, parameter] : parameters_)
      list.push_back(shared_tensor<T>(prefix_ + "." + name, parameter));
    return list;
  }

 private:
  std::string prefix_;
  InitContext<T>* context_;
  std::map<std::string, BasicParameter<T>> parameters_;
};

}  // namespace detail

}  // namespace graft::inline v0_1
