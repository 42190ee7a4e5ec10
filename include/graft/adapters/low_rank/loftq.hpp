#pragma once

#include <functional>

#include "graft/adapters/config_value.hpp"
#include "graft/config.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// `loftq_config` of LoRA's configuration, names as in PEFT.
struct LoftQConfig {
  Index bits = 4;  ///< 4: NF4 in blocks of 64; 8: rows of int8
  Index iterations = 1;

  template <class Visitor>
  void fields(Visitor& v) {
    v("loftq_bits", bits);
    v("loftq_iter", iterations);
  }
  void validate() const;
};

/// LoftQ: alternates Q = quantise(W − s B A) and s B A = the rank-r part of W − Q, from B A = 0;
/// returns Q, the new frozen weight. B √s = U √S, A √s = √S Vᵀ. `step(Q)`, if given, sees each
/// round after its factors. Source: Li et al. 2023 (arXiv:2310.08659), algorithm 1; PEFT leaves out
/// √s. w: [out, in]; a: [rank, in], b: [out, rank]; `quantise` gives what is left of a weight in
/// its format.
template <std::floating_point T>
BasicTensor<T> loftq_factors(const BasicTensor<T>& w, Index iterations, T scaling,
                             const std::function<BasicTensor<T>(const BasicTensor<T>&)>& quantise,
                             BasicTensor<T>& a, BasicTensor<T>& b,
                             const std::function<void(const BasicTensor<T>&)>& step = {});

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/low_rank/impl/loftq_impl.hpp"
#endif
