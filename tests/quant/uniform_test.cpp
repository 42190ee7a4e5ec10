#include "graft/quant/uniform.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

using graft::Index;
namespace quant = graft::quant;

namespace {

std::vector<double> normal_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0.1, 0.7);
  std::vector<double> values(count);
  for (double& value : values) value = normal(random);
  return values;
}

}  // namespace

TEST_CASE("Uniform quantisers err by half a step at most and keep what they decoded") {
  const auto w = normal_values(77, 1);
  for (Index bits = 2; bits <= 8; ++bits)
    for (const Index group : {Index{11}, Index{30}, Index{77}}) {
      CAPTURE(bits, group);
      const auto symmetric = quant::quantise_symmetric<double>(w, bits, group);
      const auto affine = quant::quantise_affine<double>(w, bits, group);
      for (const auto* q : {&symmetric, &affine}) {
        const auto values = q->values();
        REQUIRE(std::ssize(q->scales) == (77 + group - 1) / group);
        // A zero point that is itself rounded moves the range by up to half a step.
        const double allowed = q->zeros.empty() ? 0.5 : 1.0;
        for (std::size_t i = 0; i < w.size(); ++i)
          CHECK(std::abs(values[i] - w[i]) <=
                allowed * q->scales[i / static_cast<std::size_t>(group)] * (1 + 1e-12));
      }
      CHECK(quant::quantise_symmetric<double>(symmetric.values(), bits, group).codes ==
            symmetric.codes);
      auto larger = w;
      for (double& v : larger) v *= 4;
      CHECK(quant::quantise_symmetric<double>(larger, bits, group).codes == symmetric.codes);
    }
  const std::vector<double> zeros(5, 0.0);
  CHECK(quant::quantise_symmetric<double>(zeros, 4, 5).scales[0] == 1);
  CHECK(quant::quantise_affine<double>(zeros, 4, 5).values() == zeros);
  CHECK_THROWS_WITH(quant::quantise_affine<double>(w, 9, 5), Catch::Contains("9 bits"));
  CHECK_THROWS_WITH(quant::quantise_symmetric<double>(w, 4, 0), Catch::Contains("groups of 0"));
}

TEST_CASE("Every number of a float format of 8 bits is its own nearest one") {
  for (const auto format : {quant::Float8::e4m3, quant::Float8::e5m2}) {
    const double top = quant::largest_value(format);
    for (int byte = 0; byte < 256; ++byte) {
      const double value = quant::float8_value(format, static_cast<std::uint8_t>(byte));
      if (!(std::abs(value) <= top)) continue;  // infinity, not a number
      CHECK(quant::float8_byte(format, value) == byte);
    }
    CHECK(quant::float8_value(format, quant::float8_byte(format, 2 * top)) == top);
    CHECK(quant::float8_value(format, quant::float8_byte(format, -2 * top)) == -top);
  }
  // Half to even, also from one binade to the next.
  CHECK(quant::float8_value(quant::Float8::e4m3, quant::float8_byte(quant::Float8::e4m3, 17)) ==
        16);
  CHECK(quant::float8_value(quant::Float8::e4m3, quant::float8_byte(quant::Float8::e4m3, 19)) ==
        20);
  CHECK(quant::float8_value(quant::Float8::e4m3, quant::float8_byte(quant::Float8::e4m3, 15.5)) ==
        16);
}

TEST_CASE("E2M1 keeps its values, rounds to the nearest and is unbiased when it rounds at random") {
  for (unsigned code = 0; code < 16; ++code) {
    if (code == 8) continue;  // a second zero
    CHECK(quant::e2m1_code(quant::e2m1_value(static_cast<std::uint8_t>(code))) == code);
  }
  for (double x = -6.5; x < 6.5; x += 0.0173) {
    double best = 1e9;
    for (const double v : quant::kE2M1Values)
      best = std::min(best, std::min(std::abs(x - v), std::abs(x + v)));
    CHECK(std::abs(quant::e2m1_value(quant::e2m1_code(x)) - x) == Approx(best).margin(1e-12));
  }
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(-0.5, 0.5);
  for (const double x : {0.3, -1.1, 2.6, 5.2}) {
    double mean = 0;
    for (int i = 0; i < 20000; ++i)
      mean += quant::e2m1_value(quant::e2m1_code(x, uniform(random))) / 20000;
    CHECK(mean == Approx(x).margin(0.03));
  }
}

TEST_CASE("Packed codes come back, the first in the highest bits") {
  CHECK(quant::pack_codes(std::vector<std::uint8_t>{1, 2, 3}, 4) ==
        std::vector<std::uint8_t>{0x12, 0x30});
  CHECK(quant::pack_codes(std::vector<std::uint8_t>{1, 2, 3, 0, 3}, 2) ==
        std::vector<std::uint8_t>{0x6C, 0xC0});
  std::mt19937 random(5);
  for (const Index bits : {Index{2}, Index{4}}) {
    std::vector<std::uint8_t> codes(101);
    for (auto& code : codes) code = static_cast<std::uint8_t>(random() % (1U << bits));
    CHECK(quant::unpack_codes(quant::pack_codes(codes, bits), bits, 101) == codes);
  }
  CHECK_THROWS_WITH(quant::pack_codes({}, 3), Catch::Contains("3 bits"));
  CHECK_THROWS_WITH(quant::unpack_codes(std::vector<std::uint8_t>(2), 4, 5),
                    Catch::Contains("5 codes in 2 bytes"));
}
