#pragma once

#include <algorithm>
#include <utility>

#include "graft/layers/quantized_linear.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL QuantizedLinear::QuantizedLinear(quant::Format format, const void* blocks,
                                              Index out_features, Index in_features, Tensor bias,
                                              std::shared_ptr<const void> keep_alive)
    : format_(format),
      blocks_(static_cast<const std::byte*>(blocks)),
      out_(out_features),
      in_(in_features),
      row_bytes_(quant::row_bytes(format, in_features)),
      bias_(std::move(bias)),
      keep_alive_(std::move(keep_alive)) {
  if (bias_ && bias_.size() != out_)
    throw ShapeError(
        concat("QuantizedLinear: bias ", bias_.shape().text(), ", expected [", out_, "]"));
}

GRAFT_KERNEL kernels::FrozenWeight QuantizedLinear::frozen_weight() const {
  kernels::FrozenWeight w;
  w.out = out_;
  w.in = in_;
  w.blocks = blocks_;
  w.row_bytes = row_bytes_;
  w.decode_step = std::max<Index>(32, quant::format_info(format_).block_elements);
  w.decode = quant::row_decoder(format_);
  w.decode_panel = quant::panel_decoder(format_);
  w.decode_columns = quant::column_decoder(format_);
  w.dot = quant::row_dot(format_, in_);
  if (activations_ == Activations::int8) w.dot_int8 = quant::int8_dot(format_, in_);
  return w;
}

GRAFT_KERNEL void QuantizedLinear::backward_input(MatrixView<const float> dy, MatrixView<float> dx,
                                                  const LowRankProduct<float>* term,
                                                  bool accumulate) const {
  const auto low = detail::kernel_term(term);
  kernels::frozen_backward_input(frozen_weight(), dy.data(), dy.rows(), dy.row_stride(), dx.data(),
                                 dx.row_stride(), accumulate, term ? &low : nullptr, compute_);
}

}  // namespace graft::inline v0_1
