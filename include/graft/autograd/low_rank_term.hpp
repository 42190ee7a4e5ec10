#pragma once

#include "graft/autograd/parameter.hpp"

namespace graft::inline v0_1 {

/// An update s · B A and what it is made of, for adapters that mix several and for optimisers that
/// look at both factors: A [rank, in], B [out, rank].
template <std::floating_point T>
struct LowRankTerm {
  BasicParameter<T> a, b;
  T scaling = 1;
  double dropout = 0;
};

}  // namespace graft::inline v0_1
