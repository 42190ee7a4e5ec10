#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "graft/kernels/frozen.hpp"
#include "kernels/support.hpp"

namespace kernel_tests {

/// Bytes q that stand for (q − 128) / 64: a stored format as simple as possible.
inline void decode_bytes(const void* row, graft::Index first, graft::Index count, float* out) {
  const auto* bytes = static_cast<const std::uint8_t*>(row) + first;
  for (graft::Index i = 0; i < count; ++i) out[i] = (static_cast<float>(bytes[i]) - 128.0f) / 64.0f;
}

inline void decode_byte_panel(const void* rows, graft::Index row_bytes, graft::Index first,
                              graft::Index count, float* to) {
  for (graft::Index l = 0; l < count; ++l)
    for (graft::Index r = 0; r < 32; ++r, ++to)
      decode_bytes(static_cast<const std::uint8_t*>(rows) + r * row_bytes, first + l, 1, to);
}

inline void decode_byte_columns(const void* rows, graft::Index row_bytes, graft::Index first,
                                graft::Index count, float* to) {
  for (graft::Index r = 0; r < count; ++r)
    decode_bytes(static_cast<const std::uint8_t*>(rows) + r * row_bytes, first, 32, to + 32 * r);
}

/// One weight in all forms, with the same values.
struct Weight {
  graft::Index out, in, row_stride;
  std::vector<std::uint8_t> bytes;
  std::vector<float> values;

  Weight(graft::Index outputs, graft::Index inputs, unsigned seed, graft::Index gap = 0)
      : out(outputs), in(inputs), row_stride(inputs + gap) {
    std::mt19937 random(seed);
    bytes.resize(static_cast<std::size_t>(out * in));
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random() % 256);
    values.assign(static_cast<std::size_t>(out * row_stride), 1e30f);
    for (graft::Index o = 0; o < out; ++o)
      decode_bytes(bytes.data() + o * in, 0, in, values.data() + o * row_stride);
  }
  float operator()(graft::Index o, graft::Index i) const {
    return values[static_cast<std::size_t>(o * row_stride + i)];
  }
  graft::kernels::FrozenWeight dense() const {
    return {.out = out, .in = in, .dense = values.data(), .row_stride = row_stride};
  }
  graft::kernels::FrozenWeight quantised() const {
    graft::kernels::FrozenWeight w{
        .out = out, .in = in, .blocks = bytes.data(), .row_bytes = in, .decode = decode_bytes};
    if (in % 32 == 0) {  // as if it were in blocks of 32
      w.decode_step = 32;
      w.decode_panel = decode_byte_panel;
      w.decode_columns = decode_byte_columns;
    }
    return w;
  }
  graft::kernels::FrozenWeight only(const graft::kernels::PackedWeights& packed) const {
    return {.out = out, .in = in, .packed = &packed};
  }
};

}  // namespace kernel_tests
