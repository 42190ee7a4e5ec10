#pragma once

/// The places of a model where adapters may go. A model owns its sites, names them by path and
/// calls them in its forward pass; adapters are attached from outside and the model knows none of
/// them.

#include "graft/layers/sites/apply_each.hpp"
#include "graft/layers/sites/attention_site.hpp"
#include "graft/layers/sites/embedding_site.hpp"
#include "graft/layers/sites/hidden_site.hpp"
#include "graft/layers/sites/linear_site.hpp"
#include "graft/layers/sites/norm_site.hpp"
#include "graft/layers/sites/pass_site.hpp"
#include "graft/layers/sites/prompt_site.hpp"
#include "graft/layers/sites/row_groups.hpp"
#include "graft/layers/sites/site_adapters.hpp"
#include "graft/layers/sites/site_biases.hpp"
#include "graft/layers/sites/site_table.hpp"
#include "graft/layers/sites/stack_site.hpp"
