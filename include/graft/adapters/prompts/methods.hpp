#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/prompts/adaption_prompt.hpp"
#include "graft/adapters/prompts/apt.hpp"
#include "graft/adapters/prompts/cartridge.hpp"
#include "graft/adapters/prompts/cpt.hpp"
#include "graft/adapters/prompts/dept.hpp"
#include "graft/adapters/prompts/e2vpt.hpp"
#include "graft/adapters/prompts/iapt.hpp"
#include "graft/adapters/prompts/lae_prefix.hpp"
#include "graft/adapters/prompts/llama_adapter.hpp"
#include "graft/adapters/prompts/llama_adapter_v2.hpp"
#include "graft/adapters/prompts/multitask_prompt_tuning.hpp"
#include "graft/adapters/prompts/p_tuning.hpp"
#include "graft/adapters/prompts/p_tuning_v2.hpp"
#include "graft/adapters/prompts/pasta.hpp"
#include "graft/adapters/prompts/pfedpg.hpp"
#include "graft/adapters/prompts/prefix_tuning.hpp"
#include "graft/adapters/prompts/prompt_tuning.hpp"
#include "graft/adapters/prompts/pvp.hpp"
#include "graft/adapters/prompts/semantic_proxies.hpp"
#include "graft/adapters/prompts/vpt.hpp"

namespace graft::inline v0_1 {

/// Methods of the prompts family.
template <std::floating_point T>
using PromptMethods =
    MethodList<PromptTuningMethod<T>, PTuningMethod<T>, PrefixTuningMethod<T>,
               MultitaskPromptTuningMethod<T>, CptMethod<T>, CartridgeMethod<T>,
               AdaptionPromptMethod<T>, PTuningV2Method<T>, PrefixTuningMlpMethod<T>,
               LlamaAdapterMethod<T>, VptMethod<T>, E2vptMethod<T>, DeptMethod<T>, IaptMethod<T>,
               AptMethod<T>, PastaMethod<T>, PvpMethod<T>, SemanticProxyMethod<T>,
               LlamaAdapterV2Method<T>, LaePrefixMethod<T>, PfedpgMethod<T>>;

}  // namespace graft::inline v0_1
