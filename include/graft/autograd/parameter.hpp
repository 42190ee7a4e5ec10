#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

/// A tensor that may be trained, with its gradient. A handle: copies name the same parameter, so a
/// factor that several layers share is one parameter with one gradient.
template <std::floating_point T>
class BasicParameter {
 public:
  BasicParameter() = default;
  explicit BasicParameter(BasicTensor<T> value, bool trainable = true);
  BasicParameter(const BasicParameter&);
  BasicParameter(BasicParameter&&) noexcept;
  BasicParameter& operator=(const BasicParameter&);
  BasicParameter& operator=(BasicParameter&&) noexcept;
  ~BasicParameter();

  explicit operator bool() const { return state_ != nullptr; }
  const BasicTensor<T>& value() const { return state_->value; }
  const Shape& shape() const { return state_->value.shape(); }
  Index size() const { return state_->value.size(); }
  /// Empty until a backward pass reached the parameter.
  const BasicTensor<T>& grad() const { return state_->grad; }
  BasicTensor<T>& mutable_grad() const { return state_->grad; }
  bool trainable() const { return state_->trainable; }
  void set_trainable(bool trainable) const { state_->trainable = trainable; }
  /// Replaces the elements; the shape may change (a reduced rank). Drops the gradient.
  void assign(BasicTensor<T> value) const;
  void zero_grad() const;
  /// Identity, for finding a parameter that several places share.
  const void* id() const { return state_.get(); }
  friend bool operator==(const BasicParameter& a, const BasicParameter& b) {
    return a.state_ == b.state_;
  }

 private:
  struct State {
    BasicTensor<T> value;
    BasicTensor<T> grad;
    bool trainable;
  };
  std::shared_ptr<State> state_;
};

/// A parameter with its name in files.
template <std::floating_point T>
struct BasicNamedParameter {
  std::string name;
  BasicParameter<T> parameter;
  std::string group = "";  ///< of the optimiser, where an adapter gives one
};

using Parameter = BasicParameter<float>;
using NamedParameter = BasicNamedParameter<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/impl/parameter_impl.hpp"
#endif
