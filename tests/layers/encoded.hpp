#pragma once

#include <cstddef>
#include <vector>

#include "adapters/method_checks.hpp"
#include "graft/quant/format.hpp"

namespace layer_tests {

/// A weight in the blocks of a format, and what they hold.
struct Encoded {
  std::vector<std::byte> blocks;
  graft::Tensor decoded;
};
inline Encoded encode(graft::quant::Format format, graft::Index out, graft::Index in) {
  const auto w = checks::random_tensor<float>({out, in}, 5, 0.1);
  Encoded e;
  e.blocks.resize(static_cast<std::size_t>(out * graft::quant::row_bytes(format, in)));
  graft::quant::encode(format, w.data(), w.size(), e.blocks.data());
  e.decoded = graft::Tensor::empty({out, in});
  for (graft::Index o = 0; o < out; ++o)
    graft::quant::row_decoder(format)(e.blocks.data() + o * graft::quant::row_bytes(format, in), 0,
                                      in, e.decoded.data() + o * in);
  return e;
}

}  // namespace layer_tests
