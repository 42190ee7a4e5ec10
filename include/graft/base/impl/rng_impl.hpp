#pragma once

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <utility>

#include "graft/base/rng.hpp"

namespace graft::inline v0_1::detail {

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

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

GRAFT_KERNEL double kaiming_uniform_bound(Index fan_in, double a) {
  if (fan_in < 1)
    throw ValueError(concat("kaiming_uniform: fan_in ", fan_in, ", expected at least 1"));
  const double std = std::sqrt(2.0 / (1.0 + a * a)) / std::sqrt(static_cast<double>(fan_in));
  return std::sqrt(3.0) * std;
}

GRAFT_KERNEL void kaiming_uniform(TorchGenerator& generator, float* values, Index count,
                                  Index fan_in, double a) {
  const double bound = kaiming_uniform_bound(fan_in, a);
  generator.uniform(values, count, -bound, bound);
}

GRAFT_KERNEL bool TorchGenerator::bernoulli(double probability) {
  if (!(probability >= 0.0 && probability <= 1.0))
    throw ValueError(
        concat("TorchGenerator::bernoulli: probability ", probability, ", expected 0 to 1"));
  return uniform() < probability;
}

GRAFT_KERNEL void TorchGenerator::seed(std::uint64_t value) {
  words_[0] = static_cast<std::uint32_t>(value);
  for (std::size_t i = 1; i < kWords; ++i)
    words_[i] =
        1812433253u * (words_[i - 1] ^ (words_[i - 1] >> 30)) + static_cast<std::uint32_t>(i);
  position_ = kWords;
  has_cached_normal_ = false;
}

GRAFT_KERNEL std::uint32_t TorchGenerator::random32() {
  if (position_ == kWords) twist();
  std::uint32_t y = words_[position_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

GRAFT_KERNEL double TorchGenerator::normal() {
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

template <class Real, class Draw>
void TorchGenerator::fill_uniform(Real* values, Index count, double low, double high, Draw draw) {
  check_count("uniform", count);
  if (!(low <= high && std::isfinite(low) && std::isfinite(high)))
    throw ValueError(concat("TorchGenerator::uniform: the range ", low, " to ", high,
                            ", expected two finite numbers in order"));
  const auto from = static_cast<Real>(low);
  const Real width = static_cast<Real>(high) - from;
  for (Index i = 0; i < count; ++i) values[i] = std::fma(draw(), width, from);
}

template <class Real>
void TorchGenerator::fill_normal(Real* values, Index count, double mean, double std) {
  check_count("normal", count);
  if (!(std >= 0.0 && std::isfinite(std) && std::isfinite(mean)))
    throw ValueError(concat("TorchGenerator::normal: mean ", mean, " and standard deviation ", std,
                            ", expected finite numbers and a deviation of at least 0"));
  if (count < kBlock) {
    for (Index i = 0; i < count; ++i) values[i] = static_cast<Real>(std::fma(normal(), std, mean));
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

GRAFT_KERNEL void TorchGenerator::uniform(float* values, Index count, double low, double high) {
  fill_uniform(values, count, low, high,
               [this] { return static_cast<float>(random32() & 0xffffffu) * 0x1p-24f; });
}
GRAFT_KERNEL void TorchGenerator::uniform(double* values, Index count, double low, double high) {
  fill_uniform(values, count, low, high, [this] { return uniform(); });
}

GRAFT_KERNEL void TorchGenerator::normal(float* values, Index count, double mean, double std) {
  fill_normal(values, count, mean, std);
}
GRAFT_KERNEL void TorchGenerator::normal(double* values, Index count, double mean, double std) {
  fill_normal(values, count, mean, std);
}

GRAFT_KERNEL std::int64_t TorchGenerator::randint(std::int64_t low, std::int64_t high) {
  if (low >= high)
    throw ValueError(concat("TorchGenerator::randint: the range [", low, ", ", high, ") is empty"));
  const std::uint64_t range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  const std::uint64_t draw = range >= (std::uint64_t{1} << 28) ? random64() : random32();
  return static_cast<std::int64_t>(draw % range + static_cast<std::uint64_t>(low));
}

GRAFT_KERNEL std::vector<std::int64_t> TorchGenerator::randperm(Index count) {
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

GRAFT_KERNEL std::vector<std::uint32_t> TorchGenerator::state() const {
  std::vector<std::uint32_t> words(words_.begin(), words_.end());
  const auto cached = std::bit_cast<std::uint64_t>(has_cached_normal_ ? cached_normal_ : 0.0);
  words.push_back(static_cast<std::uint32_t>(position_));
  words.push_back(has_cached_normal_ ? 1u : 0u);
  words.push_back(static_cast<std::uint32_t>(cached));
  words.push_back(static_cast<std::uint32_t>(cached >> 32));
  return words;
}

GRAFT_KERNEL void TorchGenerator::set_state(std::span<const std::uint32_t> words) {
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

GRAFT_KERNEL void TorchGenerator::twist() {
  for (std::size_t i = 0; i < kWords; ++i) {
    const std::uint32_t y = (words_[i] & 0x80000000u) | (words_[(i + 1) % kWords] & 0x7fffffffu);
    words_[i] = words_[(i + kMiddle) % kWords] ^ (y >> 1) ^ ((y & 1u) != 0 ? 0x9908b0dfu : 0u);
  }
  position_ = 0;
}

GRAFT_KERNEL void TorchGenerator::normal_block(float* values, float mean, float std) {
  for (Index j = 0; j < kBlock / 2; ++j) {
    const float radius = std::sqrt(-2.0f * detail::cephes_log(1.0f - values[j]));
    const auto [sine, cosine] = detail::cephes_sin_cos(
        detail::rounded(2.0f * std::numbers::pi_v<float> * values[j + kBlock / 2]));
    values[j] = std::fma(detail::rounded(radius * cosine), std, mean);
    values[j + kBlock / 2] = std::fma(detail::rounded(radius * sine), std, mean);
  }
}

GRAFT_KERNEL void TorchGenerator::normal_block(double* values, double mean, double std) {
  for (Index j = 0; j < kBlock / 2; ++j) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - values[j]));
    const double theta = 2.0 * std::numbers::pi * values[j + kBlock / 2];
    values[j] = std::fma(detail::rounded(radius * std::cos(theta)), std, mean);
    values[j + kBlock / 2] = std::fma(detail::rounded(radius * std::sin(theta)), std, mean);
  }
}

GRAFT_KERNEL NumpyGenerator::NumpyGenerator(std::uint64_t seed) {
  const auto words = seed_sequence(seed);
  const Wide start = join(words[0], words[1]);
  increment_ = Wide(join(words[2], words[3]) << 1 | 1u);
  state_ = increment_ + start;
  step();
}

GRAFT_KERNEL std::uint32_t NumpyGenerator::random32() {
  if (has_half_) {
    has_half_ = false;
    return half_;
  }
  const std::uint64_t draw = random64();
  has_half_ = true;
  half_ = static_cast<std::uint32_t>(draw >> 32);
  return static_cast<std::uint32_t>(draw);
}

GRAFT_KERNEL std::int64_t NumpyGenerator::integers(std::int64_t low, std::int64_t high) {
  if (low >= high)
    throw ValueError(
        concat("NumpyGenerator::integers: the range [", low, ", ", high, ") is empty"));
  const std::uint64_t last = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) - 1;
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(low) + bounded(last));
}

GRAFT_KERNEL std::vector<std::int64_t> NumpyGenerator::choice(Index population, Index size,
                                                              bool replace) {
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

GRAFT_KERNEL std::array<std::uint64_t, 4> NumpyGenerator::seed_sequence(std::uint64_t seed) {
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

GRAFT_KERNEL std::uint64_t NumpyGenerator::bounded(std::uint64_t last) {
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

GRAFT_KERNEL std::uint64_t NumpyGenerator::masked(std::uint64_t last) {
  const std::uint64_t mask = std::bit_ceil(last + 1) - 1;
  const bool narrow = last <= std::numeric_limits<std::uint32_t>::max();
  for (;;) {
    const std::uint64_t draw = (narrow ? random32() : random64()) & mask;
    if (draw <= last) return draw;
  }
}

GRAFT_KERNEL void NumpyGenerator::floyd(std::uint64_t population, std::span<std::int64_t> chosen) {
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

}  // namespace graft::inline v0_1
