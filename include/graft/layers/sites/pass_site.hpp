#pragma once

#include <algorithm>
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
                  const std::function<BasicTensor<T>(BasicTape<T>&)>& hidden_states) const {
    const auto* context = tape.template context<ForwardContext>();
    if (this->runs_by_row(context)) {
      for (const auto& named : this->adapters())
        if (std::find(context->row_adapters.begin(), context->row_adapters.end(), named.name) !=
            context->row_adapters.end())
          throw ValueError(concat("adapter '", named.name,
                                  "' mixes other adapters by what the whole batch looks like: it "
                                  "cannot run for some rows of a batch only; give these rows a "
                                  "batch of their own"));
      return;
    }
    for (const auto& adapter : this->chain()) adapter->before(tape, hidden_states);
  }
};

}  // namespace graft::inline v0_1
