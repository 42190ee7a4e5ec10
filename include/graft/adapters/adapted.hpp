#pragma once

#include <utility>

#include "graft/adapters/adapter.hpp"

namespace graft::inline v0_1 {

/// A layer with an adapter, statically typed: y = adapter.apply(base, x). It is a `Linear` itself,
/// so it can be wrapped again.
///
/// The base is held by value (graft's layers are handles that share their weight); hold a large
/// layer of your own through `std::shared_ptr` and `AnyLinear`, or wrap a small handle to it. Move
/// it only before it is used on a tape.
template <class Base, class Adapter>
class Adapted {
  // Values, not constraints: compilers then say in a few lines what a type should have, also where
  // the types are deduced. static_assert(graft::FrozenLinear<Layer>) names what is missing.
  static constexpr bool kBaseIsLinear = Linear<Base>;
  static_assert(kBaseIsLinear,
                "the layer must model graft::FrozenLinear (in_features(), out_features(), "
                "forward(x, y), backward_input(dy, dx)) or graft::TapeLinear");
  static constexpr bool kIsLinearAdapter = LinearAdapter<Adapter>;
  static_assert(kIsLinearAdapter,
                "the adapter must model graft::LinearAdapter (Scalar; apply(base, x) that gives "
                "a BasicVar<Scalar>; tensors() that gives a vector of AdapterTensor<Scalar>)");

 public:
  using Scalar = ScalarOf<Base>;
  static_assert(std::same_as<Scalar, typename Adapter::Scalar>,
                "layer and adapter must have the same Scalar");

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

}  // namespace graft::inline v0_1
