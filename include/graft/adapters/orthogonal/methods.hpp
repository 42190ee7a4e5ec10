#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/orthogonal/boft.hpp"
#include "graft/adapters/orthogonal/ether.hpp"
#include "graft/adapters/orthogonal/goft.hpp"
#include "graft/adapters/orthogonal/hra.hpp"
#include "graft/adapters/orthogonal/oft.hpp"
#include "graft/adapters/orthogonal/osf.hpp"
#include "graft/adapters/orthogonal/psoft.hpp"

namespace graft::inline v0_1 {

/// Methods of the orthogonal family.
template <std::floating_point T>
using OrthogonalMethods =
    MethodList<LinearMethod<BasicBOFT<T>>, LinearMethod<BasicHRA<T>>, OFTMethod<T>,
               LinearMethod<BasicPSOFT<T>>, LinearMethod<BasicOSF<T>>, LinearMethod<BasicETHER<T>>,
               LinearMethod<BasicETHERPlus<T>>, LinearMethod<BasicGOFT<T>>,
               LinearMethod<BasicQGOFT<T>>>;

}  // namespace graft::inline v0_1
