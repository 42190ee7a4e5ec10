#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/orthogonal/boft.hpp"
#include "graft/adapters/orthogonal/hra.hpp"
#include "graft/adapters/orthogonal/oft.hpp"

namespace graft {

/// Methods of the orthogonal family.
template <std::floating_point T>
using OrthogonalMethods =
    MethodList<LinearMethod<BasicBOFT<T>>, LinearMethod<BasicHRA<T>>, OFTMethod<T>>;

}  // namespace graft
