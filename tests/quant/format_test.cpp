#include "graft/quant/format.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "graft/io/safetensors.hpp"
#include "kernels/support.hpp"

namespace {

using graft::Index;
using graft::io::SafetensorsFile;
using graft::quant::Format;
using kernel_tests::for_each_isa;
namespace fs = std::filesystem;

std::vector<Format> all_formats() {
  std::vector<Format> formats;
  for (int i = 0; i <= static_cast<int>(Format::tq2_0); ++i)
    formats.push_back(static_cast<Format>(i));
  return formats;
}

/// The case of a format, from the folder beside the project or from the project itself.
fs::path case_path(Format format) {
  const fs::path part =
      fs::path("quant") / graft::quant::format_info(format).name / "case.safetensors";
  const fs::path root = GRAFT_SOURCE_DIR;
  const fs::path outside = root / ".." / "shared" / "conformance" / part;
  return fs::exists(outside) ? outside : root / "tests" / "cases" / part;
}

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.empty() || b.empty()) return a.size() == b.size();
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Blocks of random bytes whose f16 fields are finite.
std::vector<std::uint8_t> random_blocks(Format format, Index count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> bytes(size_of(graft::quant::row_bytes(format, count)));
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
  for (std::size_t i = 1; i < bytes.size(); i += 2) bytes[i] &= 0xBF;
  return bytes;
}

}  // namespace

TEST_CASE("every format decodes its conformance case bit by bit") {
  for (const Format format : all_formats()) {
    if (format == Format::f32) continue;
    CAPTURE(graft::quant::format_info(format).name);
    const SafetensorsFile file = SafetensorsFile::open(case_path(format));
    const auto& raw = file.at("raw");
    const std::vector<float> expected = graft::io::to_f32(file.at("value"));
    REQUIRE(std::ssize(raw.data) == graft::quant::row_bytes(format, std::ssize(expected)));
    for_each_isa([&](const char* isa) {
      CAPTURE(isa);
      std::vector<float> values(expected.size());
      graft::quant::decode(format, raw.data.data(), std::ssize(values), values.data());
      CHECK(same_bits(values, expected));
    });
  }
}

TEST_CASE("every format with an encoding gives the bytes of its conformance case") {
  int encoded = 0;
  for (const Format format : all_formats()) {
    if (format == Format::f32) continue;
    CAPTURE(graft::quant::format_info(format).name);
    const SafetensorsFile file = SafetensorsFile::open(case_path(format));
    const auto* const source = file.find("source");
    const auto& raw = file.at("raw");
    std::vector<std::byte> bytes(raw.data.size());
    if (source == nullptr) {
      std::vector<float> zeros(256);
      CHECK_THROWS_AS(graft::quant::encode(format, zeros.data(), 256, bytes.data()),
                      graft::ValueError);
      continue;
    }
    ++encoded;
    const std::vector<float> values = graft::io::to_f32(*source);
    graft::quant::encode(format, values.data(), std::ssize(values), bytes.data());
    CHECK(std::memcmp(bytes.data(), raw.data.data(), bytes.size()) == 0);
  }
  CHECK(encoded == 10);
}

TEST_CASE("all instruction sets decode random blocks of any length to the same bits") {
  for (const Format format : all_formats()) {
    const auto& info = graft::quant::format_info(format);
    CAPTURE(info.name);
    for (const Index blocks : {0, 1, 2, 3, 7, 37}) {
      const Index count = blocks * info.block_elements;
      const auto bytes = random_blocks(format, count, static_cast<unsigned>(7 + blocks));
      std::vector<std::vector<float>> results;
      for_each_isa([&](const char* isa) {
        CAPTURE(isa);
        // A guard behind the end must survive.
        std::vector<float> values(size_of(count) + 16, -12345.0F);
        graft::quant::decode(format, bytes.data(), count, values.data());
        for (std::size_t i = size_of(count); i < values.size(); ++i)
          REQUIRE(values[i] == -12345.0F);
        values.resize(size_of(count));
        results.push_back(values);
      });
      for (const auto& result : results) CHECK(same_bits(result, results.front()));
    }
  }
}

TEST_CASE("blocks may lie at any address") {
  for (const Format format : all_formats()) {
    const auto& info = graft::quant::format_info(format);
    CAPTURE(info.name);
    const Index count = 64 / std::min<Index>(info.block_elements, 32) * info.block_elements;
    const auto bytes = random_blocks(format, count, 5);
    std::vector<float> expected(size_of(count)), values(size_of(count));
    graft::quant::decode(format, bytes.data(), count, expected.data());
    for (std::size_t shift = 1; shift < 8; ++shift) {
      std::vector<std::uint8_t> shifted(bytes.size() + shift);
      std::memcpy(shifted.data() + shift, bytes.data(), bytes.size());
      for_each_isa([&](const char* isa) {
        CAPTURE(isa);
        graft::quant::decode(format, shifted.data() + shift, count, values.data());
        CHECK(same_bits(values, expected));
      });
    }
  }
}

TEST_CASE("a row decoder starts at any block") {
  for (const Format format : all_formats()) {
    const auto& info = graft::quant::format_info(format);
    CAPTURE(info.name);
    const Index count = 5 * info.block_elements;
    const auto bytes = random_blocks(format, count, 3);
    std::vector<float> whole(size_of(count));
    graft::quant::decode(format, bytes.data(), count, whole.data());
    const auto decoder = graft::quant::row_decoder(format);
    for (Index first = 0; first < 5; ++first) {
      for (Index length = 0; first + length <= 5; ++length) {
        std::vector<float> part(size_of(length * info.block_elements));
        decoder(bytes.data(), first * info.block_elements, std::ssize(part), part.data());
        const auto begin = whole.begin() + first * info.block_elements;
        CHECK(same_bits(part, std::vector<float>(begin, begin + std::ssize(part))));
      }
    }
  }
}

TEST_CASE("encoding moves a value by no more than a step of the format") {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> values(512);
  for (float& value : values) value = normal(random);
  // Largest distance between neighbouring values of the format, over the largest magnitude.
  const std::vector<std::pair<Format, float>> steps = {
      {Format::f32, 0.0F},       {Format::f16, 0.001F},      {Format::bf16, 0.008F},
      {Format::q4_0, 1.0F / 8},  {Format::q4_1, 2.0F / 15},  {Format::q5_0, 1.0F / 16},
      {Format::q5_1, 2.0F / 31}, {Format::q8_0, 1.0F / 127}, {Format::mxfp4, 1.0F / 2},
      {Format::tq1_0, 1.0F},     {Format::tq2_0, 1.0F}};
  float largest = 0.0F;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  for (const auto& [format, step] : steps) {
    CAPTURE(graft::quant::format_info(format).name);
    std::vector<std::byte> bytes(size_of(graft::quant::row_bytes(format, 512)));
    graft::quant::encode(format, values.data(), 512, bytes.data());
    std::vector<float> decoded(512);
    graft::quant::decode(format, bytes.data(), 512, decoded.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
      REQUIRE(std::abs(decoded[i] - values[i]) <= step * largest);
    }
  }
}

TEST_CASE("zeros, infinities and NaN can be encoded") {
  for (const Format format : all_formats()) {
    const auto& info = graft::quant::format_info(format);
    CAPTURE(info.name);
    std::vector<std::byte> bytes(size_of(graft::quant::row_bytes(format, 256)));
    std::vector<float> values(256), decoded(256, 1.0F);
    try {
      graft::quant::encode(format, values.data(), 256, bytes.data());
    } catch (const graft::ValueError&) {
      continue;
    }
    graft::quant::decode(format, bytes.data(), 256, decoded.data());
    for (const float value : decoded) CHECK(value == 0.0F);
    values[3] = std::numeric_limits<float>::infinity();
    values[40] = std::numeric_limits<float>::quiet_NaN();
    values[41] = std::numeric_limits<float>::max();
    CHECK_NOTHROW(graft::quant::encode(format, values.data(), 256, bytes.data()));
  }
}

TEST_CASE("counts that are not whole blocks are refused") {
  std::vector<float> values(256);
  std::vector<std::byte> bytes(1024);
  CHECK_THROWS_WITH(graft::quant::row_bytes(Format::q4_0, 33),
                    Catch::Contains("Q4_0") && Catch::Contains("32") && Catch::Contains("33"));
  CHECK_THROWS_AS(graft::quant::decode(Format::q6_k, bytes.data(), 32, values.data()),
                  graft::ValueError);
  CHECK_THROWS_AS(graft::quant::encode(Format::q8_0, values.data(), 31, bytes.data()),
                  graft::ValueError);
  CHECK_THROWS_AS(graft::quant::row_bytes(Format::f16, -1), graft::ValueError);
  CHECK(graft::quant::row_bytes(Format::q4_1, 576) == 360);
  CHECK(graft::quant::row_bytes(Format::f32, 5) == 20);
}

TEST_CASE("GGML type numbers and formats correspond") {
  std::set<std::uint32_t> seen;
  for (const Format format : all_formats()) {
    const auto& info = graft::quant::format_info(format);
    CHECK(seen.insert(info.ggml_type).second);
    CHECK(graft::quant::format_of_ggml_type(info.ggml_type) == format);
  }
  CHECK_FALSE(graft::quant::format_of_ggml_type(4).has_value());
  CHECK_FALSE(graft::quant::format_of_ggml_type(0xFFFFFFFFU).has_value());
}
