#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/selection/apet.hpp"
#include "graft/adapters/selection/diff_pruning.hpp"
#include "graft/adapters/selection/id3.hpp"
#include "graft/adapters/selection/losia.hpp"
#include "graft/adapters/selection/lt_sft.hpp"
#include "graft/adapters/selection/neuroada.hpp"
#include "graft/adapters/selection/noah.hpp"
#include "graft/adapters/selection/perp.hpp"
#include "graft/adapters/selection/pst.hpp"
#include "graft/adapters/selection/ramt.hpp"
#include "graft/adapters/selection/sift.hpp"
#include "graft/adapters/selection/spiel.hpp"
#include "graft/adapters/selection/spt.hpp"
#include "graft/adapters/selection/static_mask.hpp"
#include "graft/adapters/selection/trainable_tokens.hpp"
#include "graft/adapters/selection/trpts.hpp"

namespace graft::inline v0_1 {

/// Methods of the selection family.
template <std::floating_point T>
using SelectionMethods =
    MethodList<TrainableTokensMethod<T>, StaticMaskMethod<T>, NeuroAdaMethod<T>, LoSiAMethod<T>,
               SPTMethod<T>, SpIELMethod<T>, LTSFTMethod<T>, LinearMethod<BasicRAMT<T>>,
               PSTMethod<T>, LinearMethod<BasicPERP<T>>, LinearMethod<BasicDiffPruning<T>>,
               LinearMethod<BasicAPET<T>>, SIFTMethod<T>, ID3Method<T>, TRPTSMethod<T>,
               NOAHMethod<T>>;

}  // namespace graft::inline v0_1
