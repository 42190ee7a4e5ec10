#include "graft/base/rng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

// Expected numbers and hashes were computed with torch 2.15 (on a CPU with AVX2) and numpy 2.4.

using graft::Index;
using graft::NumpyGenerator;
using graft::TorchGenerator;

namespace {

constexpr std::uint64_t kHashStart = 0xcbf29ce484222325ull;

template <class T>
std::uint64_t hash_bytes(const std::vector<T>& values, std::uint64_t hash = kHashStart) {
  std::vector<unsigned char> bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  for (const unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001b3ull;
  return hash;
}

std::vector<float> normals(TorchGenerator& generator, Index count, double mean = 0,
                           double std = 1) {
  std::vector<float> values(static_cast<std::size_t>(count));
  generator.normal(values.data(), count, mean, std);
  return values;
}

std::vector<float> uniforms(TorchGenerator& generator, Index count, double low, double high) {
  std::vector<float> values(static_cast<std::size_t>(count));
  generator.uniform(values.data(), count, low, high);
  return values;
}

}  // namespace

TEST_CASE("the Mersenne Twister gives the reference stream of seed 5489", "[base][rng]") {
  TorchGenerator generator(5489);
  CHECK(generator.random32() == 3499211612u);
  for (int i = 1; i < 9999; ++i) generator.random32();
  CHECK(generator.random32() == 4123659995u);  // the 10000th number, as the C++ standard states it
}

TEST_CASE("uniform, normal and kaiming_uniform give torch's bits for 0 to 40 elements",
          "[base][rng]") {
  std::uint64_t hash = kHashStart;
  for (Index n = 0; n <= 40; ++n) {
    TorchGenerator generator(static_cast<std::uint64_t>(100 + n));
    hash = hash_bytes(normals(generator, n), hash);
    hash = hash_bytes(normals(generator, n, 0.3, 1.7), hash);
    hash = hash_bytes(uniforms(generator, n, -0.37, 0.91), hash);
    std::vector<float> values(static_cast<std::size_t>(n));
    graft::kaiming_uniform(generator, values.data(), n, n + 1);
    hash = hash_bytes(values, hash);
  }
  CHECK(hash == 0x41c70e8e209534deull);
}

TEST_CASE("a long normal draw and the draws after it give torch's bits", "[base][rng]") {
  TorchGenerator generator(9);
  CHECK(hash_bytes(normals(generator, 100003)) == 0x5501d9134fcf5268ull);
  CHECK(normals(generator, 3) ==
        std::vector<float>{0.35095492005348206f, 0.6588385701179504f, -1.4119797945022583f});
}

TEST_CASE("double draws agree with torch", "[base][rng]") {
  TorchGenerator generator(11);
  CHECK(generator.uniform() == 0.19233373084394845);
  CHECK(generator.uniform() == 0.8852923701860037);
  CHECK(generator.uniform() == 0.6715475054338559);
  generator.seed(12);
  std::vector<double> values(17);
  generator.normal(values.data(), 17);
  CHECK(values[0] == Approx(0.7943261045292891).epsilon(1e-14));
  CHECK(values[8] == Approx(-0.9360364593227044).epsilon(1e-14));
  CHECK(values[16] == Approx(1.1587200313560686).epsilon(1e-14));
  generator.normal(values.data(), 3, 1.0, 2.0);
  CHECK(values[0] == Approx(2.0298188441800384).epsilon(1e-14));
  CHECK(values[1] == Approx(1.4299422149078451).epsilon(1e-14));
  CHECK(values[2] == Approx(1.175399928295833).epsilon(1e-14));
}

TEST_CASE("randperm and randint agree with torch on both sides of their switches", "[base][rng]") {
  TorchGenerator generator(0);
  CHECK(generator.randperm(10) == std::vector<std::int64_t>{4, 1, 7, 5, 3, 9, 0, 8, 6, 2});
  generator.seed(9);
  CHECK(hash_bytes(generator.randperm(10007)) == 0x6305d9547bdde1afull);
  CHECK(generator.randperm(0).empty());
  generator.seed(11);
  CHECK(generator.randint(-5, 7) == 4);
  CHECK(generator.randint(-5, 1000003) == 373330);
  CHECK(generator.randint(-5, (1 << 28) - 6) == 83645515);
  CHECK(generator.randint(-5, (1 << 28) - 5) == 110460236);
  CHECK(generator.randint(-5, std::int64_t{1} << 40) == 789076299069);
  CHECK_NOTHROW(generator.randint(std::numeric_limits<std::int64_t>::min(),
                                  std::numeric_limits<std::int64_t>::max()));
}

TEST_CASE("only the low 32 bits of a seed count and the default seed is torch's", "[base][rng]") {
  TorchGenerator negative(static_cast<std::uint64_t>(-1));
  CHECK(negative.randint(1000) == 371);
  CHECK(negative.randint(1000) == 978);
  CHECK(TorchGenerator(0xffffffffu).random64() ==
        TorchGenerator(static_cast<std::uint64_t>(-1)).random64());
  TorchGenerator standard;
  CHECK(uniforms(standard, 2, 0, 1) == std::vector<float>{0.267295241355896f, 0.8725283145904541f});
}

TEST_CASE("kaiming_uniform draws torch's first values for both default slopes", "[base][rng]") {
  std::vector<float> values(8);
  TorchGenerator generator(0);
  graft::kaiming_uniform(generator, values.data(), 8, 4, 0.0);
  values.resize(4);
  CHECK(values == std::vector<float>{-0.009169445373117924f, 0.657006561756134f,
                                     -1.0080204010009766f, -0.9013375639915466f});
  values.resize(21);
  generator.seed(3);
  graft::kaiming_uniform(generator, values.data(), 21, 7);
  CHECK(hash_bytes(values) == 0x8dec9ad6239a08fdull);
  CHECK(graft::kaiming_uniform_bound(49, std::sqrt(5.0)) == Approx(1.0 / 7.0));
}

TEST_CASE("a saved state continues with the same numbers, a cached normal included",
          "[base][rng]") {
  TorchGenerator generator(77);
  for (int skip : {0, 1, 623, 624, 625}) {
    for (int i = 0; i < skip; ++i) generator.random32();
    normals(generator, 5);  // odd: leaves a cached normal
    const auto saved = generator.state();
    CHECK(saved.size() == TorchGenerator::kStateWords);
    const auto expected = normals(generator, 5);
    const auto expected_next = generator.random64();
    TorchGenerator other(1);
    other.set_state(saved);
    CHECK(normals(other, 5) == expected);
    CHECK(other.random64() == expected_next);
  }
}

TEST_CASE("a state that cannot be one is refused and changes nothing", "[base][rng]") {
  TorchGenerator generator(5);
  TorchGenerator same(5);
  auto saved = generator.state();
  CHECK_THROWS_AS(generator.set_state(std::span(saved).first(627)), graft::ValueError);
  saved[0] ^= 1u;
  saved[624] = 625;
  CHECK_THROWS_AS(generator.set_state(saved), graft::ValueError);
  saved[624] = 3;
  saved[625] = 2;
  CHECK_THROWS_AS(generator.set_state(saved), graft::ValueError);
  CHECK(generator.random64() == same.random64());
}

TEST_CASE("impossible arguments of draws are refused", "[base][rng]") {
  TorchGenerator generator(5);
  float value = 0;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(generator.uniform(&value, 1, 1.0, 0.0), graft::ValueError);
  CHECK_THROWS_AS(generator.uniform(&value, -1, 0.0, 1.0), graft::ValueError);
  CHECK_THROWS_AS(generator.normal(&value, 1, 0.0, -1.0), graft::ValueError);
  CHECK_THROWS_AS(generator.normal(&value, 1, nan, 1.0), graft::ValueError);
  CHECK_THROWS_AS(generator.randint(3, 3), graft::ValueError);
  CHECK_THROWS_AS(generator.randperm(-1), graft::ValueError);
  CHECK_THROWS_AS(generator.bernoulli(1.5), graft::ValueError);
  CHECK_THROWS_AS(graft::kaiming_uniform_bound(0, 0.0), graft::ValueError);
  NumpyGenerator numpy(5);
  CHECK_THROWS_AS(numpy.integers(1, 1), graft::ValueError);
  CHECK_THROWS_AS(numpy.choice(3, 4, false), graft::ValueError);
  CHECK_THROWS_AS(numpy.choice(0, 1), graft::ValueError);
}

TEST_CASE("draws have the moments of their distributions", "[base][rng]") {
  TorchGenerator generator(1234);
  const auto check = [](const std::vector<float>& values, double mean, double std) {
    const auto n = static_cast<double>(values.size());
    const double m = std::accumulate(values.begin(), values.end(), 0.0) / n;
    double square = 0;
    for (const float v : values) square += (v - m) * (v - m);
    CHECK(m == Approx(mean).margin(5 * std / std::sqrt(n)));
    CHECK(std::sqrt(square / n) == Approx(std).epsilon(0.02));
  };
  check(normals(generator, 40009, 2.0, 0.5), 2.0, 0.5);
  check(uniforms(generator, 40009, -1.0, 3.0), 1.0, 4.0 / std::sqrt(12.0));
  int hits = 0;
  for (int i = 0; i < 20000; ++i) hits += generator.bernoulli(0.3) ? 1 : 0;
  CHECK(hits == Approx(6000).margin(5 * std::sqrt(20000 * 0.21)));
  CHECK_FALSE(generator.bernoulli(0.0));
  CHECK(generator.bernoulli(1.0));
}

TEST_CASE("the numpy generator follows default_rng(42)", "[base][rng]") {
  NumpyGenerator generator(42);
  CHECK(generator.random() == 0.7739560485559633);
  CHECK(generator.random() == 0.4388784397520523);
  CHECK(generator.integers(0, 1000) == 433);
  CHECK(generator.integers(0, 1000) == 858);
  CHECK(generator.integers(0, 1000) == 85);
  CHECK(generator.integers(0, std::int64_t{1} << 40) == 103549089075);
  CHECK(generator.choice(10, 4, false) == std::vector<std::int64_t>{4, 7, 8, 9});
  CHECK(generator.choice(5, 3) == std::vector<std::int64_t>{2, 0, 4});
  std::vector<std::int64_t> values(8);
  std::iota(values.begin(), values.end(), 0);
  generator.shuffle(std::span(values));
  CHECK(values == std::vector<std::int64_t>{0, 5, 4, 2, 6, 3, 7, 1});
}

TEST_CASE("choice without replacement follows numpy in both of its algorithms", "[base][rng]") {
  NumpyGenerator zero(0);
  CHECK(hash_bytes(zero.choice(20011, 20011, false)) == 0x96c26196926f0770ull);
  CHECK(hash_bytes(zero.choice(20011, 300, false)) == 0xfcb91d9228e77f8bull);
  CHECK(zero.random() == 0.6593882831090137);
  NumpyGenerator wide((std::uint64_t{1} << 33) + 5);  // two words of entropy
  CHECK(hash_bytes(wide.choice(20011, 20011, false)) == 0xa14de0b6d3d64198ull);
  CHECK(hash_bytes(wide.choice(20011, 300, false)) == 0x7d5592b6e55a24e9ull);
  CHECK(wide.random() == 0.6144660656486839);
}

TEST_CASE("choice then shuffle gives the index list of Uni-LoRA", "[base][rng]") {
  const auto index_list = [](Index count, Index length, std::uint64_t seed) {
    NumpyGenerator generator(seed);
    std::vector<std::int64_t> indices;
    for (Index i = 0; i < length; ++i)
      indices.insert(indices.end(), static_cast<std::size_t>(count / length), i);
    const auto extra = generator.choice(length, count % length, false);
    indices.insert(indices.end(), extra.begin(), extra.end());
    generator.shuffle(std::span(indices));
    return indices;
  };
  CHECK(index_list(20, 6, 42) ==
        std::vector<std::int64_t>{0, 3, 5, 2, 5, 5, 2, 2, 3, 1, 0, 4, 4, 1, 3, 4, 4, 0, 1, 0});
  CHECK(hash_bytes(index_list(100000, 256, 42)) == 0x332eb59b73d90f86ull);
}
