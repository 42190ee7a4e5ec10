#pragma once

#include "graft/kernels/simd.hpp"

/// Functions and shuffles of whole vectors that several kernels share.
#define GRAFT_FOREACH_FILE "graft/kernels/impl/vector_math_ops.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"
