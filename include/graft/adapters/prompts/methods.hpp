#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/prompts/adaption_prompt.hpp"
#include "graft/adapters/prompts/cartridge.hpp"
#include "graft/adapters/prompts/cpt.hpp"
#include "graft/adapters/prompts/llama_adapter.hpp"
#include "graft/adapters/prompts/multitask_prompt_tuning.hpp"
#include "graft/adapters/prompts/p_tuning.hpp"
#include "graft/adapters/prompts/p_tuning_v2.hpp"
#include "graft/adapters/prompts/prefix_tuning.hpp"
#include "graft/adapters/prompts/prompt_tuning.hpp"

namespace graft {

/// Methods of the prompts family.
template <std::floating_point T>
using PromptMethods = MethodList<PromptTuningMethod<T>, PTuningMethod<T>, PrefixTuningMethod<T>,
                                 MultitaskPromptTuningMethod<T>, CptMethod<T>, CartridgeMethod<T>,
                                 AdaptionPromptMethod<T>, PTuningV2Method<T>,
                                 PrefixTuningMlpMethod<T>, LlamaAdapterMethod<T>>;

}  // namespace graft
