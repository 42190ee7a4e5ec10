#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/quant/decode.hpp"
#include "graft/quant/encode.hpp"

namespace graft::inline v0_1::quant {

/// How frozen weights are stored. Each is a GGML block type: a run of `block_elements` neighbours
/// of one row shares scales and takes `block_bytes`. The first three, with blocks of one, are those
/// of safetensors too.
enum class Format {
  f32,
  f16,
  bf16,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  iq4_xs,
  mxfp4,
  tq1_0,
  tq2_0
};

struct FormatInfo {
  std::string_view name;    ///< as GGML spells it, for example "Q4_K"
  Index block_elements;     ///< values in a block
  Index block_bytes;        ///< bytes of a block
  std::uint32_t ggml_type;  ///< number in a GGUF file
};

namespace detail {

/// Writes the block `from` as values.
using Encoder = void (*)(const float* values, Index blocks, std::byte* out);

struct FormatEntry {
  FormatInfo info;
  DecoderSet decoders;
  Encoder encoder;  // null: no encoding is defined
};

inline const FormatEntry& format_entry(Format format) {
  static constexpr std::array<FormatEntry, 18> kTable{{
      {{"F32", 1, 4, 0}, GRAFT_QUANT_DECODERS(decode_f32), encode_f32},
      {{"F16", 1, 2, 1}, GRAFT_QUANT_DECODERS(decode_f16), encode_f16},
      {{"BF16", 1, 2, 30}, GRAFT_QUANT_DECODERS(decode_bf16), encode_bf16},
      {{"Q4_0", 32, 18, 2}, GRAFT_QUANT_DECODERS(decode_q4_0), encode_q4_0},
      {{"Q4_1", 32, 20, 3}, GRAFT_QUANT_DECODERS(decode_q4_1), encode_q4_1},
      {{"Q5_0", 32, 22, 6}, GRAFT_QUANT_DECODERS(decode_q5_0), encode_q5_0},
      {{"Q5_1", 32, 24, 7}, GRAFT_QUANT_DECODERS(decode_q5_1), encode_q5_1},
      {{"Q8_0", 32, 34, 8}, GRAFT_QUANT_DECODERS(decode_q8_0), encode_q8_0},
      {{"Q2_K", 256, 84, 10}, GRAFT_QUANT_DECODERS(decode_q2_k), nullptr},
      {{"Q3_K", 256, 110, 11}, GRAFT_QUANT_DECODERS(decode_q3_k), nullptr},
      {{"Q4_K", 256, 144, 12}, GRAFT_QUANT_DECODERS(decode_q4_k), nullptr},
      {{"Q5_K", 256, 176, 13}, GRAFT_QUANT_DECODERS(decode_q5_k), nullptr},
      {{"Q6_K", 256, 210, 14}, GRAFT_QUANT_DECODERS(decode_q6_k), nullptr},
      {{"IQ4_NL", 32, 18, 20}, GRAFT_QUANT_DECODERS(decode_iq4_nl), nullptr},
      {{"IQ4_XS", 256, 136, 23}, GRAFT_QUANT_DECODERS(decode_iq4_xs), nullptr},
      {{"MXFP4", 32, 17, 39}, GRAFT_QUANT_DECODERS(decode_mxfp4), encode_mxfp4},
      {{"TQ1_0", 256, 54, 34}, GRAFT_QUANT_DECODERS(decode_tq1_0), encode_tq1_0},
      {{"TQ2_0", 256, 66, 35}, GRAFT_QUANT_DECODERS(decode_tq2_0), encode_tq2_0},
  }};
  return kTable[static_cast<std::size_t>(format)];
}

inline void check_blocks(std::string_view operation, const FormatInfo& info, Index count) {
  if (count < 0 || count % info.block_elements != 0) {
    throw ValueError(concat(operation, ": ", info.name, " needs a multiple of ",
                            info.block_elements, " values, got ", count));
  }
}

}  // namespace detail

/// Name, sizes and GGML number of a format.
inline const FormatInfo& format_info(Format format) { return detail::format_entry(format).info; }

/// The format of a GGML type number; nothing when graft does not know it.
inline std::optional<Format> format_of_ggml_type(std::uint32_t ggml_type) {
  for (int i = 0; i <= static_cast<int>(Format::tq2_0); ++i) {
    const auto format = static_cast<Format>(i);
    if (format_info(format).ggml_type == ggml_type) return format;
  }
  return std::nullopt;
}

/// Bytes of a row. Errors: ValueError when `columns` is not a multiple of the block.
inline Index row_bytes(Format format, Index columns) {
  const FormatInfo& info = format_info(format);
  detail::check_blocks("row_bytes", info, columns);
  return columns / info.block_elements * info.block_bytes;
}

/// Writes `count` values of a row as f32, from the value `first` on. `first` and `count` are
/// multiples of the format's block; neither is checked.
using RowDecoder = detail::RowDecoder;

/// The decoder of a format for the instruction set that is active now. Errors: those of
/// `kernels::active_isa`.
inline RowDecoder row_decoder(Format format) {
  return detail::pick_decoder(detail::format_entry(format).decoders);
}

/// Decodes whole blocks to `count` values. The results equal those of the format's reference
/// implementation bit by bit. Errors: ValueError when `count` is not a multiple of the block.
inline void decode(Format format, const void* blocks, Index count, float* out) {
  detail::check_blocks("decode", format_info(format), count);
  row_decoder(format)(blocks, 0, count, out);
}

/// Encodes `count` values as whole blocks, with the bytes that the reference implementation gives.
/// Errors: ValueError when `count` is not a multiple of the block, and for formats without a
/// defined encoding (Q2_K … Q6_K, IQ4_NL, IQ4_XS).
inline void encode(Format format, const float* values, Index count, void* blocks) {
  const detail::FormatEntry& entry = detail::format_entry(format);
  detail::check_blocks("encode", entry.info, count);
  if (entry.encoder == nullptr)
    throw ValueError(concat("encode: no encoding into ", entry.info.name));
  entry.encoder(values, count / entry.info.block_elements, static_cast<std::byte*>(blocks));
}

}  // namespace graft::inline v0_1::quant
