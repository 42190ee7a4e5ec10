#pragma once

#include <string>
#include <vector>

#include "graft/config.hpp"
#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

/// Angles of a rotary embedding: position · theta^(-2i / dim), i = 0 … dim/2 - 1, computed in T as
/// transformers does.
///
/// Types: default; linear (angles / factor); dynamic (theta grows once rows are longer than
/// max_positions); llama3 (Llama 3.1's stretched low frequencies); yarn (Peng et al. 2023,
/// arXiv:2309.00071: low frequencies / factor, high ones as they are, a ramp between them);
/// longrope (Ding et al. 2024, arXiv:2402.13753: a divisor for each frequency, other ones for rows
/// longer than original_positions).
///
/// Where lengths count, that of the longest row of a pass does; transformers keeps the angles of
/// the longest row so far instead.
struct RopeConfig {
  Index dim = 0;
  double theta = 10000;
  std::string type = "default";
  double factor = 1;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double original_positions = 8192;
  double max_positions = 0;
  double fast_rotations = 32;  ///< yarn: from this number of turns in original_positions on,
                               ///< frequencies stay
  double slow_rotations = 1;   ///< yarn: below, they are divided
  bool truncate = true;        ///< yarn: the ramp begins and ends at whole indices
  std::vector<double> short_divisors, long_divisors;  ///< longrope: dim / 2 each
  double table_scale = 1;                             ///< of cosines and sines (yarn, longrope)
};

template <std::floating_point T>
class BasicRope {
 public:
  struct Tables {
    BasicTensor<T> cos;  ///< [rows, dim / 2]
    BasicTensor<T> sin;
  };

  BasicRope() = default;
  /// @throws ValueError for an unknown type or sizes that it cannot have.
  explicit BasicRope(const RopeConfig& config);

  /// Tables for rows of `length` tokens, row b at positions first[b], first[b] + 1, …; kept until
  /// asked for other sizes.
  const Tables& tables(const std::vector<Index>& first, Index length) const;
  /// The same for `batch` rows that all begin at one position.
  const Tables& tables(Index batch, Index length, Index first) const {
    return tables(std::vector<Index>(static_cast<std::size_t>(batch), first), length);
  }

 private:
  /// For rows of `positions`.
  std::vector<T> frequencies(Index positions) const;

  RopeConfig config_;
  mutable std::vector<T> frequencies_;
  mutable Tables tables_;
  mutable Index length_ = -1;
  mutable std::vector<Index> first_;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/rope_impl.hpp"
#endif
