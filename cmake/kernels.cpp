// The compiled library: the bodies of everything that graft/kernels declares, and the
// decompositions and Fourier transforms, once.
#define GRAFT_KERNELS_IMPLEMENTATION

#include "graft/kernels/attention.hpp"
#include "graft/kernels/cross_entropy.hpp"
#include "graft/kernels/elementwise.hpp"
#include "graft/kernels/frozen.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/kernels/int8_row.hpp"
#include "graft/kernels/norm.hpp"
#include "graft/kernels/optimizer.hpp"
#include "graft/kernels/packed_weights.hpp"
#include "graft/kernels/rotary.hpp"
#include "graft/kernels/sparse.hpp"
#include "graft/quant/dot.hpp"
#include "graft/quant/dot_int8.hpp"
#include "graft/quant/panel.hpp"
#include "graft/tensor/decompositions.hpp"
#include "graft/tensor/fft.hpp"
