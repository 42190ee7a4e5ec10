#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graft/autograd/low_rank_term.hpp"
#include "graft/layers/any_linear.hpp"

namespace graft::inline v0_1 {

/// Rows [first, first + count) of an input and the low-rank term that they get; term −1: none.
struct LowRankRun {
  Index term = -1;
  Index first = 0;
  Index count = 0;
};

/// Runs of neighbouring rows with the same number of a term; negative numbers: none.
GRAFT_KERNEL std::vector<LowRankRun> low_rank_runs(std::span<const std::int64_t> terms);

/// base(x) + sᵢ · (x Aᵢᵀ) Bᵢᵀ with a term i for each run of rows, without dropout.
///
/// The product with the base is one for all rows: the terms go into it side by side, H = [… sᵢ x
/// Aᵢᵀ …] with zeros where a row has another term, [… Bᵢ …]. That costs Σ rank more columns instead
/// of a product per term, which pays while Σ rank is small beside the inputs. x: [rows, in]; the
/// runs cover rows at most once, rows of no run have no term. This is the segmented product of
/// Punica (Chen et al. 2023, arXiv:2310.18547) and S-LoRA (Sheng et al. 2023, arXiv:2311.03285).
template <std::floating_point T>
BasicVar<T> linear_low_rank_rows(const BasicAnyLinear<T>& base, const BasicVar<T>& x,
                                 const std::vector<LowRankTerm<T>>& terms,
                                 const std::vector<LowRankRun>& runs);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/low_rank_rows_impl.hpp"
#endif
