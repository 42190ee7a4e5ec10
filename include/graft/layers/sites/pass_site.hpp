#pragma once

#include <functional>

#include "graft/autograd/tape.hpp"
#include "graft/layers/sites/site_adapters.hpp"

namespace graft::inline v0_1 {

/// Adapter of a whole forward pass behind type erasure.
template <std::floating_point T>
class PassAdapterInterface {
 public:
  virtual ~PassAdapterInterface() = default;
  /// Called before the pass that `tape` records. `hidden_states(tape)` runs the model on the same
  /// batch and gives its last hidden states, [tokens, hidden]; it comes back here first.
  virtual void before(BasicTape<T>& tape,
                      const std::function<BasicTensor<T>(BasicTape<T>&)>& hidden_states) const = 0;
};

/// The forward pass of a model as a whole. Kind `pass`: adapters that run the model twice. They
/// decide by themselves which other adapters a row runs, so rows cannot name them.
template <std::floating_point T>
class BasicPassSite : public SiteAdapters<PassAdapterInterface<T>> {
 public:
  using Scalar = T;
  using SiteAdapters<PassAdapterInterface<T>>::SiteAdapters;
  void operator()(BasicTape<T>& tape,
                  const std::function<BasicTensor<T>(BasicTape<T>&)>& hidden_states) const;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/sites/impl/pass_site_impl.hpp"
#endif
