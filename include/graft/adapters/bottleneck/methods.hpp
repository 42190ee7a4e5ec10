#pragma once

#include "graft/adapters/bottleneck/adalink.hpp"
#include "graft/adapters/bottleneck/autopeft.hpp"
#include "graft/adapters/bottleneck/bi_adapter.hpp"
#include "graft/adapters/bottleneck/das.hpp"
#include "graft/adapters/bottleneck/detris.hpp"
#include "graft/adapters/bottleneck/dyt.hpp"
#include "graft/adapters/bottleneck/houlsby.hpp"
#include "graft/adapters/bottleneck/hyperformer.hpp"
#include "graft/adapters/bottleneck/iaa.hpp"
#include "graft/adapters/bottleneck/mam.hpp"
#include "graft/adapters/bottleneck/mosa.hpp"
#include "graft/adapters/bottleneck/parallel.hpp"
#include "graft/adapters/bottleneck/petl_ast.hpp"
#include "graft/adapters/bottleneck/pfeiffer.hpp"
#include "graft/adapters/bottleneck/pha.hpp"
#include "graft/adapters/bottleneck/polyhistor.hpp"
#include "graft/adapters/bottleneck/sparse_adapter.hpp"
#include "graft/adapters/bottleneck/ut_adapter.hpp"
#include "graft/adapters/bottleneck/vl_adapter.hpp"
#include "graft/adapters/bottleneck/vl_pet.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Bottleneck adapters.
template <std::floating_point T>
using BottleneckMethods = MethodList<
    HoulsbyMethod<T>, PfeifferMethod<T>, ParallelAdapterMethod<T>, MAMMethod<T>, BiAdapterMethod<T>,
    VLAdapterMethod<T>, PETLASTMethod<T>, HyperFormerMethod<T, HyperFormerConfig>,
    HyperFormerMethod<T, HyperFormerPlusPlusConfig>, UTAdapterMethod<T>, AdaLinkMethod<T>,
    VLPETMethod<T>, SparseAdapterMethod<T>, IAAMethod<T>, PolyhistorMethod<T, PolyhistorConfig>,
    PolyhistorMethod<T, PolyhistorLiteConfig>, MoSAMethod<T>, DyTMethod<T>, PHAMethod<T>,
    DETRISMethod<T>, AutoPEFTMethod<T>, DASMethod<T>>;

}  // namespace graft::inline v0_1
