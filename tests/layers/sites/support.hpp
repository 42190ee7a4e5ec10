#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/part.hpp"
#include "graft/layers/dense_linear.hpp"
#include "graft/layers/sites/linear_site.hpp"

namespace site_tests {

/// y = base(factor · x) + shift.
struct Affine {
  using Scalar = float;
  float factor, shift;
  template <graft::Linear L>
  graft::Var apply(const L& base, const graft::Var& x) const {
    return add_scalar(linear(base, scale(x, factor)), shift);
  }
  std::vector<graft::AdapterTensor<float>> tensors() const { return {}; }
};
/// Moves the first element of the input behind the others; several do it one after the other.
struct Rotate {
  using Scalar = float;
  static constexpr bool kInputInOrder = true;
  float first;
  template <graft::Linear L>
  graft::Var apply(const L& base, const graft::Var& x) const {
    const auto head = slice(x, -1, 0, 1);
    return linear(base, concat_along(-1, std::vector<graft::Var>{slice(x, -1, 1, x.cols() - 1),
                                                                 scale(head, first)}));
  }
  std::vector<graft::AdapterTensor<float>> tensors() const { return {}; }
};

inline graft::LinearSite identity_site(graft::Index width) {
  return {"proj", graft::DenseLinear(graft::Tensor::identity(width))};
}
inline std::vector<float> run(const graft::LinearSite& site, std::initializer_list<float> x,
                              std::shared_ptr<const void> context = nullptr) {
  graft::Tape tape({.gradients = false});
  tape.set_context(std::move(context));
  const auto rows = static_cast<graft::Index>(x.size()) / site.in_features();
  const auto y = site(tape.constant(graft::Tensor::from(x, {rows, site.in_features()}))).value();
  return {y.begin(), y.end()};
}
template <class Method>
void attach(graft::LinearSite& site, const std::string& name, Method method) {
  site.adapters().push_back({name, graft::linear_part(method)});
}

}  // namespace site_tests
