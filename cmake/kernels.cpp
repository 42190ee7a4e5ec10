// The compiled kernels: the bodies of everything that graft/kernels declares, once.
#define GRAFT_KERNELS_IMPLEMENTATION

#include "graft/kernels/frozen.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/kernels/packed_weights.hpp"
