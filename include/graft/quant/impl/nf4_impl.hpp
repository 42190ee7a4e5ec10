#pragma once

#include <cmath>

#include "graft/quant/nf4.hpp"

namespace graft::inline v0_1::quant {

GRAFT_KERNEL const std::array<float, 16>& code_values(CodeBook book) {
  static constexpr std::array<float, 16> kNf4{
      -1.0F,         -0.69619280F, -0.52507305F, -0.39491749F, -0.28444138F, -0.18477343F,
      -0.091050036F, 0.0F,         0.0795803F,   0.1609302F,   0.2461123F,   0.33791524F,
      0.44070983F,   0.562617F,    0.72295684F,  1.0F};
  // The magnitudes of E2M1 over its largest one, as the reference rounds and orders them.
  static constexpr std::array<float, 16> kFp4{
      0.0F, 0.0052083333F,  0.6666667F,  1.0F,  0.33333333F,  0.5F,  0.16666667F,  0.25F,
      0.0F, -0.0052083333F, -0.6666667F, -1.0F, -0.33333333F, -0.5F, -0.16666667F, -0.25F};
  return book == CodeBook::nf4 ? kNf4 : kFp4;
}

GRAFT_KERNEL const std::array<float, 256>& dynamic_code_values() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> values{};
    std::size_t count = 0;
    for (int i = 0; i < 7; ++i) {
      const int parts = 1 << i;
      // f32 roundings as the reference makes them: of the step, of each boundary (counted from the
      // nearer end), of the midpoint and of the power of ten.
      const auto step = static_cast<double>((1.0F - 0.1F) / static_cast<float>(parts));
      const auto boundary = [&](int k) {
        return static_cast<float>(k < (parts + 1) / 2 ? static_cast<double>(0.1F) + step * k
                                                      : 1.0 - step * (parts - k));
      };
      const auto power = static_cast<float>(std::pow(10.0, i - 6));
      for (int part = 0; part < parts; ++part) {
        const float value = (boundary(part) + boundary(part + 1)) / 2.0F * power;
        values[count++] = value;
        values[count++] = -value;
      }
    }
    values[count++] = 0.0F;
    values[count] = 1.0F;
    std::sort(values.begin(), values.end());
    return values;
  }();
  return table;
}

}  // namespace graft::inline v0_1::quant

namespace graft::inline v0_1::quant::detail {

GRAFT_KERNEL float largest_magnitude(std::span<const float> values) {
  float largest = 0.0F;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

}  // namespace graft::inline v0_1::quant::detail

namespace graft::inline v0_1::quant {

GRAFT_KERNEL Code4Array encode_4bit(std::span<const float> values, Code4Options options) {
  if (options.block <= 0 || options.block % 2 != 0) {
    throw ValueError(concat("encode_4bit: block must be positive and even, got ", options.block));
  }
  if (options.scale_group < 1)
    throw ValueError(concat("encode_4bit: groups of ", options.scale_group, " scales"));
  const detail::SortedCodes sorted(options.book);
  Code4Array array;
  array.book = options.book;
  array.block = options.block;
  array.scale_group = options.scale_group;
  array.size = std::ssize(values);
  array.codes.resize((values.size() + 1) / 2);
  array.scales.reserve(static_cast<std::size_t>(array.blocks()));
  const auto block = static_cast<std::size_t>(options.block);
  for (std::size_t first = 0; first < values.size(); first += block) {
    const auto part = values.subspan(first, std::min(block, values.size() - first));
    const float scale = detail::largest_magnitude(part);
    const float inverse = scale == 0.0F ? 0.0F : 1.0F / scale;
    array.scales.push_back(scale);
    for (std::size_t i = 0; i < part.size(); ++i) {
      const unsigned code = sorted.codes[detail::nearest(sorted.values, part[i] * inverse)];
      std::uint8_t& byte = array.codes[(first + i) / 2];
      byte = static_cast<std::uint8_t>(i % 2 == 0 ? code << 4 : byte | code);
    }
  }
  if (!options.double_quantised || values.empty()) return array;

  double sum = 0.0;
  for (const float scale : array.scales) sum += static_cast<double>(scale);
  array.scale_offset = static_cast<float>(sum / static_cast<double>(array.scales.size()));
  for (float& scale : array.scales) scale -= array.scale_offset;
  const auto scale_group = static_cast<std::size_t>(options.scale_group);
  for (std::size_t first = 0; first < array.scales.size(); first += scale_group) {
    const auto group =
        std::span(array.scales).subspan(first, std::min(scale_group, array.scales.size() - first));
    const float largest = detail::largest_magnitude(group);
    const float inverse = largest == 0.0F ? 0.0F : 1.0F / largest;
    array.scale_scales.push_back(largest);
    for (const float scale : group) {
      array.scale_codes.push_back(
          static_cast<std::uint8_t>(detail::nearest(dynamic_code_values(), scale * inverse)));
    }
  }
  array.scales = {};
  return array;
}

GRAFT_KERNEL void decode_4bit(const Code4Array& array, Index first, std::span<float> out) {
  if (first < 0 || first > array.size || std::ssize(out) > array.size - first) {
    throw ValueError(
        concat("decode_4bit: values ", first, " to ", first + std::ssize(out), " of ", array.size));
  }
  const auto& table = code_values(array.book);
  for (Index done = 0; done < std::ssize(out);) {
    const Index j = (first + done) / array.block;
    const Index end = std::min(std::ssize(out), (j + 1) * array.block - first);
    const float scale = array.scale(j);
    for (; done < end; ++done) {
      const auto position = static_cast<std::size_t>(first + done);
      const unsigned byte = array.codes[position / 2];
      out[static_cast<std::size_t>(done)] =
          table[position % 2 == 0 ? byte >> 4 : byte & 15U] * scale;
    }
  }
}

GRAFT_KERNEL std::vector<float> decode_4bit(const Code4Array& array) {
  std::vector<float> values(static_cast<std::size_t>(array.size));
  decode_4bit(array, 0, values);
  return values;
}

}  // namespace graft::inline v0_1::quant

namespace graft::inline v0_1::quant::detail {

GRAFT_KERNEL SortedCodes::SortedCodes(CodeBook book) {
  const auto& table = code_values(book);
  for (std::size_t i = 0; i < 16; ++i) codes[i] = static_cast<std::uint8_t>(i);
  std::sort(codes.begin(), codes.end(), [&](std::uint8_t a, std::uint8_t b) {
    return table[a] != table[b] ? table[a] < table[b] : a < b;
  });
  for (std::size_t i = 0; i < 16; ++i) values[i] = table[codes[i]];
}

}  // namespace graft::inline v0_1::quant::detail
