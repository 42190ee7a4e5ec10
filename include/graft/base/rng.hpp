#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1 {

/// The 32-bit Mersenne Twister (MT19937) and the draws of PyTorch's CPU generator: the same seed
/// and the same sequence of calls give the bits that torch gives.
///
/// Errors: ValueError for impossible arguments. Not safe to share between threads.
/// Source: Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998); the rules of the draws
/// were found by comparison with torch 2.15. Checked bit for bit on x86-64: torch computes `normal`
/// of 16 and more float values with single-precision polynomials on a CPU with AVX2, which is what
/// is reproduced here on every machine; on a CPU without AVX2 torch itself differs in the last
/// bits. Deviations: `bernoulli` follows the general rule; torch built with MKL draws that from
/// MKL.
class TorchGenerator {
 public:
  /// Words of a saved state: 624 of the twister, position, and the cached normal (flag, two words).
  static constexpr std::size_t kStateWords = 628;

  explicit TorchGenerator(std::uint64_t value = 67280421310721ull) { seed(value); }

  /// torch.manual_seed(value): only the low 32 bits count. Forgets a cached normal.
  void seed(std::uint64_t value);

  /// 32 uniform bits.
  std::uint32_t random32();

  /// 64 uniform bits: two draws, the high half first.
  std::uint64_t random64() {
    const std::uint64_t high = random32();
    return high << 32 | random32();
  }

  /// Uniform in [0, 1) with 53 bits: one element of torch.rand(..., dtype=float64).
  double uniform() {
    return static_cast<double>(random64() & ((std::uint64_t{1} << 53) - 1)) * 0x1p-53;
  }
  /// One of 0 … count − 1, by one uniform(); count ≥ 1.
  Index below(Index count) {
    return std::min(static_cast<Index>(uniform() * static_cast<double>(count)), count - 1);
  }

  /// values.uniform_(low, high): 24 bits and one 32-bit draw an element, in order.
  /// @throws ValueError unless low ≤ high and both are finite.
  void uniform(float* values, Index count, double low, double high);
  void uniform(double* values, Index count, double low, double high);

  /// One normal number by the rule that torch uses for fewer than 16 elements: Box–Muller in double
  /// precision, the second number of a pair is kept for the next call.
  double normal();

  /// values.normal_(mean, std) of a contiguous tensor. From 16 elements on whole blocks are drawn
  /// at once (see `normal_blocks`), which consumes the generator differently.
  /// @throws ValueError unless std ≥ 0 and both are finite.
  void normal(float* values, Index count, double mean = 0.0, double std = 1.0);
  void normal(double* values, Index count, double mean = 0.0, double std = 1.0);

  /// torch.randint(low, high): uniform integer in [low, high) by remainder. 32 bits are drawn for
  /// ranges below 2²⁸, 64 from there on (torch 2.15; older ones changed at 2³²).
  /// @throws ValueError unless low < high.
  std::int64_t randint(std::int64_t low, std::int64_t high);
  std::int64_t randint(std::int64_t high) { return randint(0, high); }

  /// torch.randperm(count): a uniform permutation of 0 … count − 1.
  /// @throws ValueError if count < 0.
  std::vector<std::int64_t> randperm(Index count);

  /// True with the given probability: one 53-bit uniform below it.
  /// @throws ValueError unless 0 ≤ probability ≤ 1.
  bool bernoulli(double probability);

  /// Everything that later draws depend on, as `kStateWords` words; for files that resume a run.
  std::vector<std::uint32_t> state() const;

  /// Continues from `state()`.
  /// @throws ValueError if the words cannot be a state; the generator is unchanged then.
  void set_state(std::span<const std::uint32_t> words);

 private:
  static constexpr std::size_t kWords = 624;
  static constexpr std::size_t kMiddle = 397;
  static constexpr Index kBlock = 16;

  void twist();

  static void check_count(const char* operation, Index count) {
    if (count < 0)
      throw ValueError(concat("TorchGenerator::", operation, ": count ", count, " is negative"));
  }

  template <class Real, class Draw>
  void fill_uniform(Real* values, Index count, double low, double high, Draw draw);
  template <class Real>
  void fill_normal(Real* values, Index count, double mean, double std);

  /// Box–Muller over 16 uniforms: number j pairs with number j + 8.
  static void normal_block(float* values, float mean, float std);
  static void normal_block(double* values, double mean, double std);

  std::array<std::uint32_t, kWords> words_{};
  std::size_t position_ = kWords;
  bool has_cached_normal_ = false;
  double cached_normal_ = 0.0;
};

/// Half-width of torch.nn.init.kaiming_uniform_: √3 · gain / √fan_in with gain = √(2 / (1 + a²)), a
/// the negative slope of a leaky ReLU. a = √5, the default of linear layers, gives 1 / √fan_in.
/// @throws ValueError if fan_in < 1.
GRAFT_KERNEL double kaiming_uniform_bound(Index fan_in, double a);

/// Fills values with U(−bound, bound), bound = kaiming_uniform_bound(fan_in, a), as torch does.
GRAFT_KERNEL void kaiming_uniform(TorchGenerator& generator, float* values, Index count,
                                  Index fan_in, double a = 2.23606797749978969641);

/// NumPy's numpy.random.default_rng(seed): PCG64 seeded through SeedSequence, with the draws that
/// adapters need. Same seed and calls, same numbers.
///
/// Errors: ValueError for impossible arguments. Not safe to share between threads.
/// Source: O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms"
/// (2014), variant XSL-RR 128/64; Lemire, "Fast Random Integer Generation in an Interval",
/// arXiv:1805.10941; Floyd's sampling in Bentley, CACM 30 (1987). Checked against numpy 2.4.
class NumpyGenerator {
 public:
  explicit NumpyGenerator(std::uint64_t seed);

  /// 64 uniform bits.
  std::uint64_t random64() {
    step();
    const auto high = static_cast<std::uint64_t>(state_ >> 64);
    return std::rotr(high ^ static_cast<std::uint64_t>(state_), static_cast<int>(high >> 58));
  }

  /// 32 uniform bits: the low half of a 64-bit draw, then its high half.
  std::uint32_t random32();

  /// rng.random(): uniform in [0, 1) with 53 bits.
  double random() { return static_cast<double>(random64() >> 11) * 0x1p-53; }

  /// rng.integers(low, high): uniform in [low, high).
  /// @throws ValueError unless low < high.
  std::int64_t integers(std::int64_t low, std::int64_t high);

  /// rng.choice(population, size, replace): numbers below population. Without replacement they are
  /// distinct and in random order.
  /// @throws ValueError if a size is negative, the population is empty while size is not, or it is
  /// smaller than size without replacement.
  std::vector<std::int64_t> choice(Index population, Index size, bool replace = true);

  /// rng.shuffle(values) of a one-dimensional array.
  template <class T>
  void shuffle(std::span<T> values) {
    for (std::size_t i = values.size(); i-- > 1;) {
      using std::swap;
      swap(values[i], values[static_cast<std::size_t>(masked(i))]);
    }
  }

 private:
  __extension__ using Wide = unsigned __int128;

  static Wide join(std::uint64_t high, std::uint64_t low) { return Wide{high} << 64 | low; }

  void step() {
    state_ = state_ * join(2549297995355413924ull, 4865540595714422341ull) + increment_;
  }

  /// SeedSequence(seed).generate_state(4, uint64): the seed's words hashed into a pool of four,
  /// mixed, and hashed out again.
  static std::array<std::uint64_t, 4> seed_sequence(std::uint64_t seed);

  /// Uniform in [0, last] by Lemire's multiplication.
  std::uint64_t bounded(std::uint64_t last);

  /// Uniform in [0, last] by masking and rejection, as numpy's shuffle draws.
  std::uint64_t masked(std::uint64_t last);

  /// Fisher–Yates from the end down to index `first`, as numpy's choice does.
  void shuffle_from(std::span<std::int64_t> values, std::size_t first) {
    for (std::size_t i = values.size(); i-- > first;)
      std::swap(values[i], values[static_cast<std::size_t>(bounded(i))]);
  }

  /// chosen.size() distinct numbers below population: each draw that was seen before is replaced by
  /// the bound of its draw, which cannot have been.
  void floyd(std::uint64_t population, std::span<std::int64_t> chosen);

  Wide state_ = 0;
  Wide increment_ = 1;
  bool has_half_ = false;
  std::uint32_t half_ = 0;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/base/impl/rng_impl.hpp"
#endif
