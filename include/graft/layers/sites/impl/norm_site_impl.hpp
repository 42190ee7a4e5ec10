#pragma once

#include "graft/layers/sites/norm_site.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> BasicNormSite<T>::operator()(const BasicVar<T>& x) const {
  const auto* context = x.tape().template context<ForwardContext>();
  if (this->runs_by_row(context) ||
      (context != nullptr && !context->row_adapters.empty() && !biases.list.empty())) {
    const RowGroups groups(*context, this->path(), x.rows());
    auto parts = groups.each(x.tape(), *context, [&](const RowGroups::Group& group) {
      return run(groups.part(x, group), this->chain_of(group.name), biases.of(group.name));
    });
    return groups.joined(std::move(parts), x.shape());
  }
  if (this->runs_one(context))
    return run(x, this->chain_of(*context->only), biases.of(*context->only));
  return run(x, this->chain(), biases.active);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicNormSite<float>;
template class BasicNormSite<double>;
#endif

}  // namespace graft::inline v0_1
