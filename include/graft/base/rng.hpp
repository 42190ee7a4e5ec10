#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numbers>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// The value as a number in memory: stops the compiler from fusing the multiplication behind it
/// with a following addition, whatever -march or -ffp-contract says.
template <class Real>
Real rounded(Real value) {
  volatile Real stored = value;
  return stored;
}

/// log(x), x in (0, 1], within an ulp or so: the single-precision polynomial of the Cephes library,
/// with the fused operations that an FMA machine makes of it.
inline float cephes_log(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  auto exponent = static_cast<float>(static_cast<int>(bits >> 23) - 126);
  x = std::bit_cast<float>((bits & 0x007fffffu) | 0x3f000000u);  // mantissa in [1/2, 1)
  if (x < 0.707106781186547524f) {
    exponent -= 1.0f;
    x = rounded(x - 1.0f) + x;
  } else {
    x -= 1.0f;
  }
  constexpr std::array<float, 8> coefficients{
      -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
      -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
  const float square = rounded(x * x);
  float y = 7.0376836292e-2f;
  for (const float c : coefficients) y = std::fma(y, x, c);
  y = std::fma(rounded(y * x), square, rounded(exponent * -2.12194440e-4f));
  y = rounded(x + rounded(y - 0.5f * square));
  return std::fma(exponent, 0.693359375f, y);
}

/// sin(x) and cos(x), 0 ≤ x < 2π: single-precision Cephes, as above.
inline std::pair<float, float> cephes_sin_cos(float x) {
  const int octant = (static_cast<int>(rounded(x * 1.27323954473516f)) + 1) & ~1;
  const auto y = static_cast<float>(octant);
  // x − octant·π/4 in three steps of decreasing size.
  x = std::fma(y, -0.78515625f, x);
  x = std::fma(y, -2.4187564849853515625e-4f, x);
  x = std::fma(y, -3.77489497744594108e-8f, x);
  const float square = rounded(x * x);
  float c = std::fma(2.443315711809948e-5f, square, -1.388731625493765e-3f);
  c = std::fma(c, square, 4.166664568298827e-2f);
  c = std::fma(rounded(c * square), square, -0.5f * square) + 1.0f;
  float s = std::fma(-1.9515295891e-4f, square, 8.3321608736e-3f);
  s = std::fma(s, square, -1.6666654611e-1f);
  s = std::fma(rounded(s * square), x, x);
  if ((octant & 2) != 0) std::swap(s, c);
  if ((octant & 4) != 0) s = -s;
  if (((octant - 2) & 4) == 0) c = -c;
  return {s, c};
}

}  // namespace detail

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
  void seed(std::uint64_t value) {
    words_[0] = static_cast<std::uint32_t>(value);
    for (std::size_t i = 1; i < kWords; ++i)
      words_[i] =
          1812433253u * (words_[i - 1] ^ (words_[i - 1] >> 30)) + static_cast<std::uint32_t>(i);
    position_ = kWords;
    has_cached_normal_ = false;
  }

  /// 32 uniform bits.
  std::uint32_t random32() {
    if (position_ == kWords) twist();
    std::uint32_t y = words_[position_++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
  }

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
  void uniform(float* values, Index count, double low, double high) {
    fill_uniform(values, count, low, high,
                 [this] { return static_cast<float>(random32() & 0xffffffu) * 0x1p-24f; });
  }
  void uniform(double* values, Index count, double low, double high) {
    fill_uniform(values, count, low, high, [this] { return uniform(); });
  }

  /// One normal number by the rule that torch uses for fewer than 16 elements: Box–Muller in double
  /// precision, the second number of a pair is kept for the next call.
  double normal() {
    if (has_cached_normal_) {
      has_cached_normal_ = false;
      return cached_normal_;
    }
    const double u1 = uniform();
    const double u2 = uniform();
    const double radius = std::sqrt(-2.0 * std::log1p(-u2));
    const double theta = 2.0 * std::numbers::pi * u1;
    cached_normal_ = radius * std::sin(theta);
    has_cached_normal_ = true;
    return radius * std::cos(theta);
  }

  /// values.normal_(mean, std) of a contiguous tensor. From 16 elements on whole blocks are drawn
  /// at once (see `normal_blocks`), which consumes the generator differently.
  /// @throws ValueError unless std ≥ 0 and both are finite.
  void normal(float* values, Index count, double mean = 0.0, double std = 1.0) {
    fill_normal(values, count, mean, std);
  }
  void normal(double* values, Index count, double mean = 0.0, double std = 1.0) {
    fill_normal(values, count, mean, std);
  }

  /// torch.randint(low, high): uniform integer in [low, high) by remainder. 32 bits are drawn for
  /// ranges below 2²⁸, 64 from there on (torch 2.15; older ones changed at 2³²).
  /// @throws ValueError unless low < high.
  std::int64_t randint(std::int64_t low, std::int64_t high) {
    if (low >= high)
      throw ValueError(
          concat("TorchGenerator::randint: the range [", low, ", ", high, ") is empty"));
    const std::uint64_t range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
    const std::uint64_t draw = range >= (std::uint64_t{1} << 28) ? random64() : random32();
    return static_cast<std::int64_t>(draw % range + static_cast<std::uint64_t>(low));
  }
  std::int64_t randint(std::int64_t high) { return randint(0, high); }

  /// torch.randperm(count): a uniform permutation of 0 … count − 1.
  /// @throws ValueError if count < 0.
  std::vector<std::int64_t> randperm(Index count) {
    if (count < 0)
      throw ValueError(concat("TorchGenerator::randperm: count ", count, " is negative"));
    std::vector<std::int64_t> order(static_cast<std::size_t>(count));
    const std::uint64_t size = order.size();
    if (size < std::numeric_limits<std::uint32_t>::max() / 20) {
      std::iota(order.begin(), order.end(), std::int64_t{0});
      for (std::uint64_t i = 0; i + 1 < size; ++i)
        std::swap(order[i], order[i + random32() % (size - i)]);
    } else {  // a 32-bit remainder would be skewed: inside-out with 64 bits
      for (std::uint64_t i = 0; i < size; ++i) {
        const std::uint64_t j = random64() % (i + 1);
        order[i] = order[j];
        order[j] = static_cast<std::int64_t>(i);
      }
    }
    return order;
  }

  /// True with the given probability: one 53-bit uniform below it.
  /// @throws ValueError unless 0 ≤ probability ≤ 1.
  bool bernoulli(double probability) {
    if (!(probability >= 0.0 && probability <= 1.0))
      throw ValueError(
          concat("TorchGenerator::bernoulli: probability ", probability, ", expected 0 to 1"));
    return uniform() < probability;
  }

  /// Everything that later draws depend on, as `kStateWords` words; for files that resume a run.
  std::vector<std::uint32_t> state() const {
    std::vector<std::uint32_t> words(words_.begin(), words_.end());
    const auto cached = std::bit_cast<std::uint64_t>(has_cached_normal_ ? cached_normal_ : 0.0);
    words.push_back(static_cast<std::uint32_t>(position_));
    words.push_back(has_cached_normal_ ? 1u : 0u);
    words.push_back(static_cast<std::uint32_t>(cached));
    words.push_back(static_cast<std::uint32_t>(cached >> 32));
    return words;
  }

  /// Continues from `state()`.
  /// @throws ValueError if the words cannot be a state; the generator is unchanged then.
  void set_state(std::span<const std::uint32_t> words) {
    if (words.size() != kStateWords)
      throw ValueError(
          concat("TorchGenerator::set_state: ", words.size(), " words, expected ", kStateWords));
    if (words[kWords] > kWords || words[kWords + 1] > 1)
      throw ValueError("TorchGenerator::set_state: the words are not a saved state");
    std::copy_n(words.begin(), kWords, words_.begin());
    position_ = words[kWords];
    has_cached_normal_ = words[kWords + 1] == 1;
    cached_normal_ =
        std::bit_cast<double>(std::uint64_t{words[kWords + 3]} << 32 | words[kWords + 2]);
  }

 private:
  static constexpr std::size_t kWords = 624;
  static constexpr std::size_t kMiddle = 397;
  static constexpr Index kBlock = 16;

  void twist() {
    for (std::size_t i = 0; i < kWords; ++i) {
      const std::uint32_t y = (words_[i] & 0x80000000u) | (words_[(i + 1) % kWords] & 0x7fffffffu);
      words_[i] = words_[(i + kMiddle) % kWords] ^ (y >> 1) ^ ((y & 1u) != 0 ? 0x9908b0dfu : 0u);
    }
    position_ = 0;
  }

  static void check_count(const char* operation, Index count) {
    if (count < 0)
      throw ValueError(concat("TorchGenerator::", operation, ": count ", count, " is negative"));
  }

  template <class Real, class Draw>
  void fill_uniform(Real* values, Index count, double low, double high, Draw draw) {
    check_count("uniform", count);
    if (!(low <= high && std::isfinite(low) && std::isfinite(high)))
      throw ValueError(concat("TorchGenerator::uniform: the range ", low, " to ", high,
                              ", expected two finite numbers in order"));
    const auto from = static_cast<Real>(low);
    const Real width = static_cast<Real>(high) - from;
    for (Index i = 0; i < count; ++i) values[i] = std::fma(draw(), width, from);
  }

  template <class Real>
  void fill_normal(Real* values, Index count, double mean, double std) {
    check_count("normal", count);
    if (!(std >= 0.0 && std::isfinite(std) && std::isfinite(mean)))
      throw ValueError(concat("TorchGenerator::normal: mean ", mean, " and standard deviation ",
                              std, ", expected finite numbers and a deviation of at least 0"));
    if (count < kBlock) {
      for (Index i = 0; i < count; ++i)
        values[i] = static_cast<Real>(std::fma(normal(), std, mean));
      return;
    }
    uniform(values, count, 0.0, 1.0);
    const auto m = static_cast<Real>(mean);
    const auto s = static_cast<Real>(std);
    for (Index i = 0; i + kBlock <= count; i += kBlock) normal_block(values + i, m, s);
    if (count % kBlock != 0) {  // the last block overlaps the one before and is drawn anew
      uniform(values + count - kBlock, kBlock, 0.0, 1.0);
      normal_block(values + count - kBlock, m, s);
    }
  }

  /// Box–Muller over 16 uniforms: number j pairs with number j + 8.
  static void normal_block(float* values, float mean, float std) {
    for (Index j = 0; j < kBlock / 2; ++j) {
      const float radius = std::sqrt(-2.0f * detail::cephes_log(1.0f - values[j]));
      const auto [sine, cosine] = detail::cephes_sin_cos(
          detail::rounded(2.0f * std::numbers::pi_v<float> * values[j + kBlock / 2]));
      values[j] = std::fma(detail::rounded(radius * cosine), std, mean);
      values[j + kBlock / 2] = std::fma(detail::rounded(radius * sine), std, mean);
    }
  }
  static void normal_block(double* values, double mean, double std) {
    for (Index j = 0; j < kBlock / 2; ++j) {
      const double radius = std::sqrt(-2.0 * std::log(1.0 - values[j]));
      const double theta = 2.0 * std::numbers::pi * values[j + kBlock / 2];
      values[j] = std::fma(detail::rounded(radius * std::cos(theta)), std, mean);
      values[j + kBlock / 2] = std::fma(detail::rounded(radius * std::sin(theta)), std, mean);
    }
  }

  std::array<std::uint32_t, kWords> words_{};
  std::size_t position_ = kWords;
  bool has_cached_normal_ = false;
  double cached_normal_ = 0.0;
};

/// Half-width of torch.nn.init.kaiming_uniform_: √3 · gain / √fan_in with gain = √(2 / (1 + a²)), a
/// the negative slope of a leaky ReLU. a = √5, the default of linear layers, gives 1 / √fan_in.
/// @throws ValueError if fan_in < 1.
inline double kaiming_uniform_bound(Index fan_in, double a) {
  if (fan_in < 1)
    throw ValueError(concat("kaiming_uniform: fan_in ", fan_in, ", expected at least 1"));
  const double std = std::sqrt(2.0 / (1.0 + a * a)) / std::sqrt(static_cast<double>(fan_in));
  return std::sqrt(3.0) * std;
}

/// Fills values with U(−bound, bound), bound = kaiming_uniform_bound(fan_in, a), as torch does.
inline void kaiming_uniform(TorchGenerator& generator, float* values, Index count, Index fan_in,
                            double a = 2.23606797749978969641) {
  const double bound = kaiming_uniform_bound(fan_in, a);
  generator.uniform(values, count, -bound, bound);
}

/// NumPy's numpy.random.default_rng(seed): PCG64 seeded through SeedSequence, with the draws that
/// adapters need. Same seed and calls, same numbers.
///
/// Errors: ValueError for impossible arguments. Not safe to share between threads.
/// Source: O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms"
/// (2014), variant XSL-RR 128/64; Lemire, "Fast Random Integer Generation in an Interval",
/// arXiv:1805.10941; Floyd's sampling in Bentley, CACM 30 (1987). Checked against numpy 2.4.
class NumpyGenerator {
 public:
  explicit NumpyGenerator(std::uint64_t seed) {
    const auto words = seed_sequence(seed);
    const Wide start = join(words[0], words[1]);
    increment_ = Wide(join(words[2], words[3]) << 1 | 1u);
    state_ = increment_ + start;
    step();
  }

  /// 64 uniform bits.
  std::uint64_t random64() {
    step();
    const auto high = static_cast<std::uint64_t>(state_ >> 64);
    return std::rotr(high ^ static_cast<std::uint64_t>(state_), static_cast<int>(high >> 58));
  }

  /// 32 uniform bits: the low half of a 64-bit draw, then its high half.
  std::uint32_t random32() {
    if (has_half_) {
      has_half_ = false;
      return half_;
    }
    const std::uint64_t draw = random64();
    has_half_ = true;
    half_ = static_cast<std::uint32_t>(draw >> 32);
    return static_cast<std::uint32_t>(draw);
  }

  /// rng.random(): uniform in [0, 1) with 53 bits.
  double random() { return static_cast<double>(random64() >> 11) * 0x1p-53; }

  /// rng.integers(low, high): uniform in [low, high).
  /// @throws ValueError unless low < high.
  std::int64_t integers(std::int64_t low, std::int64_t high) {
    if (low >= high)
      throw ValueError(
          concat("NumpyGenerator::integers: the range [", low, ", ", high, ") is empty"));
    const std::uint64_t last =
        static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) - 1;
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(low) + bounded(last));
  }

  /// rng.choice(population, size, replace): numbers below population. Without replacement they are
  /// distinct and in random order.
  /// @throws ValueError if a size is negative, the population is empty while size is not, or it is
  /// smaller than size without replacement.
  std::vector<std::int64_t> choice(Index population, Index size, bool replace = true) {
    if (population < 0 || size < 0 || (size > 0 && population == 0) ||
        (!replace && size > population))
      throw ValueError(concat("NumpyGenerator::choice: ", size, " of ", population,
                              replace ? " with" : " without", " replacement"));
    std::vector<std::int64_t> chosen(static_cast<std::size_t>(size));
    if (replace) {
      for (auto& value : chosen) value = integers(0, population);
    } else if (population > 10000 && size > population / 50) {
      std::vector<std::int64_t> all(static_cast<std::size_t>(population));
      std::iota(all.begin(), all.end(), std::int64_t{0});
      shuffle_from(std::span(all), std::max<std::size_t>(all.size() - chosen.size(), 1));
      std::copy(all.end() - size, all.end(), chosen.begin());
    } else {
      floyd(static_cast<std::uint64_t>(population), std::span(chosen));
      shuffle_from(std::span(chosen), 1);
    }
    return chosen;
  }

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
  static std::array<std::uint64_t, 4> seed_sequence(std::uint64_t seed) {
    const std::array<std::uint32_t, 4> entropy{static_cast<std::uint32_t>(seed),
                                               static_cast<std::uint32_t>(seed >> 32), 0u, 0u};
    std::uint32_t constant = 0x43b0d7e5u;
    const auto hash = [&constant](std::uint32_t value, std::uint32_t multiplier) {
      value ^= constant;
      constant *= multiplier;
      value *= constant;
      return value ^ (value >> 16);
    };
    std::array<std::uint32_t, 4> pool;
    for (std::size_t i = 0; i < 4; ++i) pool[i] = hash(entropy[i], 0x931e8875u);
    for (std::size_t from = 0; from < 4; ++from)
      for (std::size_t to = 0; to < 4; ++to) {
        if (from == to) continue;
        const std::uint32_t mixed =
            0xca01f9ddu * pool[to] - 0x4973f715u * hash(pool[from], 0x931e8875u);
        pool[to] = mixed ^ (mixed >> 16);
      }
    std::array<std::uint64_t, 4> words;
    constant = 0x8b51f9ddu;
    for (std::size_t i = 0; i < 4; ++i) {
      const std::uint64_t low = hash(pool[(2 * i) % 4], 0x58f38dedu);
      words[i] = std::uint64_t{hash(pool[(2 * i + 1) % 4], 0x58f38dedu)} << 32 | low;
    }
    return words;
  }

  /// Uniform in [0, last] by Lemire's multiplication.
  std::uint64_t bounded(std::uint64_t last) {
    if (last == 0) return 0;
    constexpr std::uint32_t kMax32 = std::numeric_limits<std::uint32_t>::max();
    if (last < kMax32) {
      const std::uint32_t count = static_cast<std::uint32_t>(last) + 1;
      std::uint64_t product = std::uint64_t{random32()} * count;
      if (static_cast<std::uint32_t>(product) < count) {
        const std::uint32_t threshold = (kMax32 - (count - 1)) % count;
        while (static_cast<std::uint32_t>(product) < threshold)
          product = std::uint64_t{random32()} * count;
      }
      return product >> 32;
    }
    if (last == kMax32) return random32();
    if (last == std::numeric_limits<std::uint64_t>::max()) return random64();
    const std::uint64_t count = last + 1;
    Wide product = Wide{random64()} * count;
    if (static_cast<std::uint64_t>(product) < count) {
      const std::uint64_t threshold = (std::numeric_limits<std::uint64_t>::max() - last) % count;
      while (static_cast<std::uint64_t>(product) < threshold) product = Wide{random64()} * count;
    }
    return static_cast<std::uint64_t>(product >> 64);
  }

  /// Uniform in [0, last] by masking and rejection, as numpy's shuffle draws.
  std::uint64_t masked(std::uint64_t last) {
    const std::uint64_t mask = std::bit_ceil(last + 1) - 1;
    const bool narrow = last <= std::numeric_limits<std::uint32_t>::max();
    for (;;) {
      const std::uint64_t draw = (narrow ? random32() : random64()) & mask;
      if (draw <= last) return draw;
    }
  }

  /// Fisher–Yates from the end down to index `first`, as numpy's choice does.
  void shuffle_from(std::span<std::int64_t> values, std::size_t first) {
    for (std::size_t i = values.size(); i-- > first;)
      std::swap(values[i], values[static_cast<std::size_t>(bounded(i))]);
  }

  /// chosen.size() distinct numbers below population: each draw that was seen before is replaced by
  /// the bound of its draw, which cannot have been.
  void floyd(std::uint64_t population, std::span<std::int64_t> chosen) {
    const std::uint64_t first = population - chosen.size();
    std::vector<std::int64_t> seen(std::bit_ceil(2 * chosen.size() + 1), -1);
    const std::uint64_t mask = seen.size() - 1;
    const auto insert = [&](std::uint64_t value) {
      std::uint64_t at = value & mask;
      while (seen[at] != -1 && seen[at] != static_cast<std::int64_t>(value)) at = (at + 1) & mask;
      const bool added = seen[at] == -1;
      seen[at] = static_cast<std::int64_t>(value);
      return added;
    };
    for (std::uint64_t bound = first; bound < population; ++bound) {
      std::uint64_t value = bounded(bound);
      if (!insert(value)) {
        value = bound;
        insert(value);
      }
      chosen[bound - first] = static_cast<std::int64_t>(value);
    }
  }

  Wide state_ = 0;
  Wide increment_ = 1;
  bool has_half_ = false;
  std::uint32_t half_ = 0;
};

}  // namespace graft::inline v0_1
