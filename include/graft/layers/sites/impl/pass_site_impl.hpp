#pragma once

#include <algorithm>

#include "graft/layers/sites/pass_site.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
void BasicPassSite<T>::operator()(
    BasicTape<T>& tape, const std::function<BasicTensor<T>(BasicTape<T>&)>& hidden_states) const {
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

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicPassSite<float>;
template class BasicPassSite<double>;
#endif

}  // namespace graft::inline v0_1
