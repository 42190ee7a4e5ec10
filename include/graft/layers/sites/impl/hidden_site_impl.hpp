#pragma once

#include <algorithm>

#include "graft/layers/sites/hidden_site.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicHiddenSite<T>::BasicHiddenSite(std::string path, Index width, HiddenRole role,
                                    std::string output, const BasicNormSite<T>* norm)
    : SiteAdapters<HiddenAdapterInterface<T>>(std::move(path)),
      width_(width),
      role_(role),
      output_(std::move(output)),
      norm_(norm) {}

template <std::floating_point T>
BasicVar<T> BasicHiddenSite<T>::normalised_sum(const BasicVar<T>& input, const BasicVar<T>& output,
                                               const BasicVar<T>& residual) const {
  return each_chain(input, output, residual,
                    [this](const Chain& chain, const BasicVar<T>& in, const BasicVar<T>& out,
                           const BasicVar<T>& rest) {
                      const auto sum = add(rest, run(chain, in, out, rest));
                      const bool skips =
                          std::any_of(chain.begin(), chain.end(),
                                      [](const auto& adapter) { return adapter->skips_norm(); });
                      return skips ? sum : (*norm_)(sum);
                    });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicHiddenSite<float>;
template class BasicHiddenSite<double>;
#endif

}  // namespace graft::inline v0_1
