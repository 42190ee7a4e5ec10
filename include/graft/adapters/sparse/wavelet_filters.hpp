#pragma once

#include <iterator>
#include <string_view>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1::detail {

/// Low-pass filter of the synthesis of the orthogonal wavelets that PEFT 0.21.2 can transform with:
/// db1 to db10 (Daubechies 1992, table 6.1), the least asymmetric sym2 to sym10 (table 6.3) and the
/// coiflets coif1 to coif4 (table 8.1), Σ h = √2.
///
/// The elements of coif4 are those of PEFT, which are not a wavelet (Σ h = 1.448, not orthogonal):
/// its files mean them. coif5 of PEFT has 48 elements where its sizes are for 30, so that no layer
/// runs with it; db11, sym11, coif6 and above have sizes but no elements there.
/// @throws ValueError for another name.
GRAFT_KERNEL std::vector<double> wavelet_filter(std::string_view name);

}  // namespace graft::inline v0_1::detail

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/sparse/impl/wavelet_filters_impl.hpp"
#endif
