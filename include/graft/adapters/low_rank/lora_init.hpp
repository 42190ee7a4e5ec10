#pragma once

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/low_rank/corda.hpp"
#include "graft/adapters/low_rank/loftq.hpp"
#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/adapters/low_rank/lora_ga.hpp"
#include "graft/adapters/randomized_svd.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// A pair of low-rank factors: a [rank, in], b [out, rank]; b of a grouped convolution [out, rank /
/// groups], those of E stacked experts [rank E, in] and [out, rank E].
template <std::floating_point T>
struct LowRankFactors {
  BasicTensor<T> a;
  BasicTensor<T> b;
  BasicTensor<T> bias;  ///< of b, [out], if the configuration has one
};

/// Initial factors of LoRA by the name in `init_lora_weights`, with s the scaling:
///  - true: A kaiming-uniform with a = √5, that is U(±1/√in), B = 0 (Hu et al. 2021, the reference
///  code);
///  - false: both random, B as a layer of rank inputs;   "gaussian": A ~ N(0, 1/rank), B = 0;
///  - "orthogonal": A and B from rows 0, 2, … and 1, 3, … of a random orthogonal matrix, so that B
///  A = 0;
///  - "pissa": B √s = U_r √S_r, A √s = √S_r V_rᵀ of W, and W loses s B A (Meng et al. 2024);
///  "pissa_niter_N": the same from a randomised decomposition with N power iterations;
///  - "olora": B = Q_r, A = R_r of W = Q R, and W loses Q_r R_r (Büyükakyüz 2024); PEFT does not
///  divide by s, so W loses s B A;
///  - "mica": A = 0, B = the left singular vectors of the rank smallest singular values;
///  - "eva": A = the first directions of the inputs, B = 0; "corda" and "lora_ga": from the inputs'
///  covariance and the weight's gradient, W loses s B A; these need calibration data, see
///  `add_calibrated` and eva.hpp, corda.hpp, lora_ga.hpp;
///  - "loftq": s B A is what the quantised W lacks, and W becomes the quantised one, see loftq.hpp.
/// Every init but false draws A and B of a default layer first and drops them, as PEFT does, so
/// that later draws are those of PEFT.
/// @throws ValueError for another name, an odd rank with "orthogonal", or a rank above min(out, in)
/// where W is decomposed; if calibration data is missing.
template <std::floating_point T>
LowRankFactors<T> initial_factors(const LoRAConfig& config, const LinearSiteInfo<T>& site,
                                  InitContext<T>& context);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/low_rank/impl/lora_init_impl.hpp"
#endif
