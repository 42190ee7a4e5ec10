#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/named_activation.hpp"
#include "graft/config.hpp"

/// What adapters that sit at the end of a sublayer share: their place, and the descriptor.
namespace graft::inline v0_1 {

namespace detail {

/// True if a site is the end of a sublayer that `placement` names: "attention" (of every kind) or
/// "feed_forward" ("ffn").
GRAFT_KERNEL bool placed_at(const std::vector<std::string>& placement, HiddenRole role);

/// @throws ValueError for a place that does not exist.
GRAFT_KERNEL void require_placement(std::string_view method,
                                    const std::vector<std::string>& placement);

/// Names below the site's path for the tensors of an adapter that files hold at the last linear
/// layer of the sublayer.
template <std::floating_point T>
std::vector<AdapterTensor<T>> below(const std::string& prefix,
                                    std::vector<AdapterTensor<T>> tensors);

/// The last linear layers of the feed-forward networks of a model, in order; they read the inner
/// activations.
template <std::floating_point T>
std::vector<BasicLinearSite<T>*> last_feed_forward_layers(const BasicSiteTable<T>& table);

/// A part without tensors of its own in the sense of the registry: zeros while a checkpoint
/// follows, else drawn values.
template <std::floating_point T, class Draw>
BasicParameter<T> fresh(InitContext<T>& context, const Shape& shape, Draw&& draw) {
  auto t = BasicTensor<T>::zeros(shape);
  if (!context.loading) draw(context.generator, t);
  return BasicParameter<T>(std::move(t));
}
template <std::floating_point T>
BasicParameter<T> constant(const Shape& shape, std::type_identity_t<T> value) {
  return BasicParameter<T>(BasicTensor<T>::full(shape, value));
}
/// Uniform in ±1/√in, as torch's Linear draws weights and biases.
template <std::floating_point T>
BasicParameter<T> linear_default(InitContext<T>& context, const Shape& shape, Index in);

}  // namespace detail

/// y = h + A(h): a module behind a linear layer, or at the end of a sublayer before the residual
/// sum. `Module` is a map of the tape with `tensors()` and `merge_reason()`.
template <class Module>
class SerialAdapter {
 public:
  using Scalar = typename Module::Scalar;
  using T = Scalar;

  explicit SerialAdapter(Module module, std::string prefix = "")
      : module_(std::move(module)), prefix_(std::move(prefix)) {}
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto h = linear(base, x);
    return add(h, module_(h));
  }
  BasicVar<T> apply(const BasicVar<T>&, const BasicVar<T>& output, const BasicVar<T>&) const {
    return add(output, module_(output));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    return detail::below(prefix_, module_.tensors());
  }
  void after_load() {
    if constexpr (requires(Module& m) { m.after_load(); }) module_.after_load();
  }
  std::string merge_reason() const { return module_.merge_reason(); }
  Module& module() { return module_; }

 private:
  Module module_;
  std::string prefix_;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/impl/sublayer_impl.hpp"
#endif
