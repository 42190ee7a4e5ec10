#pragma once

#include "graft/kernels/impl/bf16_impl.hpp"
#include "graft/kernels/impl/gemm_impl.hpp"
#include "graft/kernels/packed_weights.hpp"

namespace graft::inline v0_1::kernels {
namespace detail {

/// The right operand that `weight` is for y = x Wᵀ or, in the backward direction, for dx = dy W.
inline RightOperand operand_of(const FrozenWeight& weight, bool backward) noexcept {
  RightOperand b;
  b.form = backward ? RightOperand::Form::k_rows : RightOperand::Form::n_rows;
  if (weight.dense != nullptr) {
    b.data = weight.dense;
    b.stride = weight.row_stride;
  } else {
    b.blocks = weight.blocks;
    b.row_bytes = weight.row_bytes;
    b.row_values = weight.in;
    b.decode_step = weight.decode_step;
    b.decode = weight.decode;
    b.decode_panel = weight.decode_panel;
    b.decode_columns = weight.decode_columns;
    b.dot = weight.dot;
    b.dot_int8 = weight.dot_int8;
  }
  return b;
}

/// All panels of B (k × n), in the order that run_product_task reads them.
inline AlignedBuffer<float> pack_panels(const RightOperand& b, Index k, Index n) {
  const Index padded = round_up(n, kPanel);
  // Some room behind the last panel, where the next one would be fetched from.
  AlignedBuffer<float> panels(static_cast<std::size_t>(std::max<Index>(k, 1) * padded + kPanel));
  const Index depth = std::max<Index>(1, block_depth(k, kMaxDepth));
  const Index groups = ceil_div(n, kDecodeStep);
  const auto fill = GRAFT_DISPATCH(fill_panels);
  ThreadPool::global().parallel_for(groups * ceil_div(k, depth), [&](Index task) {
    const Index first_n = task % groups * kDecodeStep;
    const Index first_k = task / groups * depth;
    const Index here = std::min(depth, k - first_k);
    fill(b, first_k, here, first_n, std::min(kDecodeStep, n - first_n),
         panels.data() + first_k * padded + first_n * here, thread_scratch(kDecodeScratch), true);
  });
  return panels;
}

}  // namespace detail

GRAFT_KERNEL PackedWeights::PackedWeights(const FrozenWeight& weight, bool backward,
                                          Compute compute)
    : out_(weight.out), in_(weight.in), compute_(compute) {
  if (out_ < 0 || in_ < 0)
    throw ShapeError(concat("PackedWeights: expected sizes of at least 0, got ", out_, " x ", in_));
  if (weight.dense == nullptr && weight.decode == nullptr && out_ > 0 && in_ > 0)
    throw ValueError("PackedWeights: expected a dense or a quantised weight, got neither");
  if (compute == Compute::bf16) {
    forward_words_ = detail::pack_word_panels(detail::operand_of(weight, false), in_, out_);
    if (backward)
      backward_words_ = detail::pack_word_panels(detail::operand_of(weight, true), out_, in_);
    return;
  }
  forward_ = detail::pack_panels(detail::operand_of(weight, false), in_, out_);
  if (backward) backward_ = detail::pack_panels(detail::operand_of(weight, true), out_, in_);
}

}  // namespace graft::inline v0_1::kernels
