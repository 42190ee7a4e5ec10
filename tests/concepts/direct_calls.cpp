// What direct_calls_test.sh compiles and takes apart: nothing here is behind a type that hides it.
#include "graft/adapters/low_rank/lora.hpp"
#include "graft/layers/dense_linear.hpp"

using Once = graft::Adapted<graft::DenseLinear, graft::LoRA>;
using Twice = graft::Adapted<Once, graft::LoRA>;

graft::Var static_forward(const Once& layer, const graft::Var& x) { return layer(x); }
graft::Var static_forward(const Twice& layer, const graft::Var& x) { return layer(x); }
