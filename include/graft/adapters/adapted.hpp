#pragma once

#include <utility>

#include "graft/adapters/adapter.hpp"

namespace graft {

/// A layer with an adapter, statically typed: y = adapter.apply(base, x). It is a `Linear` itself,
/// so it can be wrapped again.
///
/// The base is held by value (graft's layers are handles that share their weight); hold a large
/// layer of your own through `std::shared_ptr` and `AnyLinear`, or wrap a small handle to it. Move
/// it only before it is used on a tape.
template <Linear Base, LinearAdapter Adapter>
  requires std::same_as<ScalarOf<Base>, typename Adapter::Scalar>
class Adapted {
 public:
  using Scalar = ScalarOf<Base>;

  Adapted(Base base, Adapter adapter) : base_(std::move(base)), adapter_(std::move(adapter)) {}

  Index in_features() const { return base_.in_features(); }
  Index out_features() const { return base_.out_features(); }
  BasicVar<Scalar> operator()(const BasicVar<Scalar>& x) const {
    return enabled_ ? adapter_.apply(base_, x) : linear(base_, x);
  }
  /// Tensors of this adapter and of adapters inside the base.
  std::vector<AdapterTensor<Scalar>> tensors() const {
    std::vector<AdapterTensor<Scalar>> all;
    if constexpr (requires { base_.tensors(); }) all = base_.tensors();
    auto own = adapter_.tensors();
    all.insert(all.end(), std::make_move_iterator(own.begin()), std::make_move_iterator(own.end()));
    return all;
  }
  /// The trainable parameters.
  std::vector<BasicParameter<Scalar>> parameters() const {
    std::vector<BasicParameter<Scalar>> result;
    for (auto& t : tensors())
      if (t.parameter && t.parameter.trainable()) result.push_back(t.parameter);
    return result;
  }
  /// One dense layer that computes the same; base and adapter stay as they are. @throws ValueError
  /// if the method cannot.
  BasicDenseLinear<Scalar> merge() const { return merge_linear(base_, adapter_); }
  void set_enabled(bool enabled) { enabled_ = enabled; }
  bool enabled() const { return enabled_; }
  const Base& base() const { return base_; }
  const Adapter& adapter() const { return adapter_; }

 private:
  Base base_;
  Adapter adapter_;
  bool enabled_ = true;
};

}  // namespace graft
