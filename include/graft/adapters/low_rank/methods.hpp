#pragma once

#include "graft/adapters/low_rank/adalora.hpp"
#include "graft/adapters/low_rank/adamss.hpp"
#include "graft/adapters/low_rank/aslora.hpp"
#include "graft/adapters/low_rank/capaboost.hpp"
#include "graft/adapters/low_rank/deft.hpp"
#include "graft/adapters/low_rank/dsee.hpp"
#include "graft/adapters/low_rank/dylora.hpp"
#include "graft/adapters/low_rank/flora.hpp"
#include "graft/adapters/low_rank/frozen_factors.hpp"
#include "graft/adapters/low_rank/glora.hpp"
#include "graft/adapters/low_rank/glora_supernet.hpp"
#include "graft/adapters/low_rank/gradnormlorp.hpp"
#include "graft/adapters/low_rank/gralora.hpp"
#include "graft/adapters/low_rank/hipa.hpp"
#include "graft/adapters/low_rank/hira.hpp"
#include "graft/adapters/low_rank/increlora.hpp"
#include "graft/adapters/low_rank/ist.hpp"
#include "graft/adapters/low_rank/light_peft.hpp"
#include "graft/adapters/low_rank/lily.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/adapters/low_rank/mos.hpp"
#include "graft/adapters/low_rank/msplora.hpp"
#include "graft/adapters/low_rank/mtlora.hpp"
#include "graft/adapters/low_rank/peanut.hpp"
#include "graft/adapters/low_rank/pela.hpp"
#include "graft/adapters/low_rank/portllm.hpp"
#include "graft/adapters/low_rank/psec.hpp"
#include "graft/adapters/low_rank/qa_lora.hpp"
#include "graft/adapters/low_rank/randlora.hpp"
#include "graft/adapters/low_rank/relaxed_recursive.hpp"
#include "graft/adapters/low_rank/rosa.hpp"
#include "graft/adapters/low_rank/switched.hpp"
#include "graft/adapters/low_rank/three_factors.hpp"
#include "graft/adapters/low_rank/tinylora.hpp"
#include "graft/adapters/low_rank/triadaptlora.hpp"
#include "graft/adapters/low_rank/unilora.hpp"
#include "graft/adapters/low_rank/vblora.hpp"
#include "graft/adapters/low_rank/vera.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Methods of the low-rank family.
template <std::floating_point T>
using LowRankMethods = MethodList<
    LoRAMethod<T>, AdaLoRAMethod<T>, LinearMethod<BasicVeRA<T>>, LinearMethod<BasicPVeRA<T>>,
    LinearMethod<BasicVBLoRA<T>>, LinearMethod<BasicRandLoRA<T>>, TinyLoRAMethod<T>,
    LinearMethod<BasicUniLoRA<T>>, HiRAMethod<T>, LinearMethod<BasicGraLoRA<T>>,
    LinearMethod<BasicLily<T>>, LinearMethod<BasicPEANuT<T>>, LinearMethod<BasicGLoRA<T>>,
    AdaMSSMethod<T>, LoRAFAMethod<T>, AsymmetricLoRAMethod<T>, LoRAXSMethod<T>, SLoRAMethod<T>,
    NystroemMethod<T, NLoRAConfig>, NystroemMethod<T, IntTuneConfig>, LinearMethod<BasicTAPS<T>>,
    LinearMethod<BasicSelectiveLoRA<T>>, LinearMethod<BasicFLoRA<T>>,
    LinearMethod<BasicCapaBoost<T>>, GLoRASupernetMethod<T>, LinearMethod<BasicMSPLoRA<T>>,
    LinearMethod<BasicQALoRA<T>>, LinearMethod<BasicMoS<T>>, RoSAMethod<T>, DyLoRAMethod<T>,
    LinearMethod<BasicDEFT<T>>, HiPAMethod<T>, GradNormLoRPMethod<T>, LinearMethod<BasicPortLLM<T>>,
    LinearMethod<BasicDSEE<T>>, LinearMethod<BasicPSEC<T>>, LinearMethod<BasicMTLoRA<T>>,
    TriAdaptLoRAMethod<T>, IncreLoRAMethod<T>, ASLoRAMethod<T>, PELAMethod<T>,
    RelaxedRecursiveMethod<T>, ISTMethod<T>, LightPEFTMethod<T>>;

}  // namespace graft::inline v0_1
