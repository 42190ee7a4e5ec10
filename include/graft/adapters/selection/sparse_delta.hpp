#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/selection/scores.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"

namespace graft::inline v0_1 {

/// A sparse change of a weight: y = base(x) + x Sᵀ, S zero but at k places.
///
/// Trained: k values, zero at the start, so the identity; merges exactly. S is held as places and
/// values and never written out; the gradient of a value is Σ_m dy[m, row] x[m, column]. Tensors:
/// sparse_indices [k] int32 (row · in + column), sparse_values [k], or under another prefix. The
/// methods of this family differ in how they choose the places and move the values.
template <std::floating_point T>
class BasicSparseDelta {
 public:
  using Scalar = T;
  /// Told x, dy and the number of examples in the backward pass; for scores.
  using Observer = std::function<void(const BasicTensor<T>&, const BasicTensor<T>&, Index)>;

  /// @throws ValueError at grouped convolutions and experts, whose weights are no plain matrices.
  explicit BasicSparseDelta(const LinearSiteInfo<T>& site, std::string prefix = "sparse",
                            IndexTensor::Type places = IndexTensor::Type::i32)
      : path_(site.path),
        out_(site.out_features),
        in_(site.in_features),
        prefix_(std::move(prefix)),
        weight_(site.weight),
        values_(BasicTensor<T>::zeros({0})),
        places_(std::make_shared<IndexTensor>()) {
    if (site.conv.groups > 1 || !site.expert.parameter.empty())
      throw ValueError(concat("sparse changes at ", site.path,
                              ", a grouped convolution or an expert, are not supported"));
    places_->type = places;
    places_->shape = {0};
    after_load();
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto y = linear(base, x);
    if (values_.size() > 0) y = add_sparse_matmul(y, x, x.tape().parameter(values_), pattern_);
    if (!observer_) return y;
    const auto* context = x.tape().template context<ForwardContext>();
    const Index examples = context != nullptr ? context->batch : 1;
    return observe_linear<T>(y, x,
                             [observer = observer_, examples](const auto& in, const auto& dy) {
                               observer(in, dy, examples);
                             });
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = prefix_ + "_indices";
    list[0].index = places_;
    list[1].name = prefix_ + "_values";
    list[1].parameter = values_;
    return list;
  }
  void before_load(const CheckpointShapes& shapes) {
    const Shape* shape = shapes(prefix_ + "_values");
    if (shape == nullptr || shape->rank() != 1) return;
    values_.assign(BasicTensor<T>::zeros(*shape));
    places_->shape = *shape;
    places_->values.assign(static_cast<std::size_t>(shape->elements()), 0);
  }
  /// @throws ValueError for a place outside of the weight.
  void after_load() {
    auto pattern = std::make_shared<SparsePattern>();
    pattern->rows = out_;
    pattern->cols = in_;
    for (const auto place : places_->values) {
      if (place < 0 || place >= out_ * in_)
        throw ValueError(concat(prefix_, "_indices of ", path_, ": place ", place, " of ",
                                out_ * in_, " elements"));
      pattern->row.push_back(static_cast<std::int32_t>(place / in_));
      pattern->col.push_back(static_cast<std::int32_t>(place % in_));
    }
    pattern_ = std::move(pattern);
  }
  /// Trains these places from zero.
  void select(selection::Places places) {
    places_->shape = {static_cast<Index>(places.size())};
    places_->values = std::move(places);
    values_.assign(BasicTensor<T>::zeros(places_->shape));
    after_load();
  }
  /// Other places and values, as many as there are.
  void replace(selection::Places places, const BasicTensor<T>& values) {
    places_->values = std::move(places);
    std::copy_n(values.data(), values.size(), values_.value().data());
    after_load();
  }

  const std::string& path() const { return path_; }
  Index out_features() const { return out_; }
  Index in_features() const { return in_; }
  BasicTensor<T> frozen_weight() const { return weight_(); }
  const BasicParameter<T>& values() const { return values_; }
  const selection::Places& places() const { return places_->values; }
  void observe(Observer observer) { observer_ = std::move(observer); }

 private:
  std::string path_;
  Index out_, in_;
  std::string prefix_;
  std::function<BasicTensor<T>()> weight_;
  BasicParameter<T> values_;
  std::shared_ptr<IndexTensor> places_;
  std::shared_ptr<const SparsePattern> pattern_;
  Observer observer_;
};

namespace selection {

/// The sparse changes among the parts of an adapter.
template <std::floating_point T>
std::vector<BasicSparseDelta<T>*> sparse_deltas(const std::vector<PlacedPart<T>>& parts) {
  return methods_of<BasicSparseDelta<T>>(parts);
}
/// The sum of what the gradients of its weight are from now on, until another observer comes.
template <std::floating_point T>
std::shared_ptr<GradientSum<T>> observe_gradients(BasicSparseDelta<T>& delta, bool squares) {
  auto sum = std::make_shared<GradientSum<T>>(delta.out_features(), delta.in_features(), squares);
  delta.observe(
      [sum](const auto& x, const auto& dy, Index examples) { sum->see(x, dy, examples); });
  return sum;
}
/// True if one of them has places.
template <std::floating_point T>
bool any_chosen(const std::vector<BasicSparseDelta<T>*>& deltas) {
  return std::any_of(deltas.begin(), deltas.end(),
                     [](const auto* delta) { return !delta->places().empty(); });
}

}  // namespace selection

}  // namespace graft::inline v0_1
