// Cross-entropy of one row for one instruction set. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

using graft::kernels::detail::EntropyRow;
using graft::kernels::detail::kEntropyBlocks;

// A row goes through memory once: block by block the maximum, then e^(x − running maximum), written
// back if the gradient is wanted. The second pass, from cache, corrects each block for the maximum
// it did not know yet.

/// x: n logits. Returns the loss and the first place of the largest logit.
GRAFT_SIMD_FN inline EntropyRow<float> cross_entropy_row(float* x, Index n, Index label,
                                                         float grad_scale,
                                                         bool write_gradient) noexcept {
  const float infinity = __builtin_inff();
  const Index per_block = (n + kEntropyBlocks - 1) / kEntropyBlocks;
  const Index block = per_block < 1024 ? 1024 : (per_block + kLanes - 1) / kLanes * kLanes;
  float reference[kEntropyBlocks];
  const float label_logit = x[label];
  float largest = -infinity, total = 0;
  Index best = 0;
  for (Index begin = 0, b = 0; begin < n; begin += block, ++b) {
    const Index count = n - begin < block ? n - begin : block;
    float* p = x + begin;
    const float block_largest = max_block(p, count);
    if (block_largest > largest) {
      total *= largest == -infinity ? 0.0f : __builtin_expf(largest - block_largest);
      largest = block_largest;
      best = begin;
      while (x[best] != largest) ++best;
    }
    reference[b] = largest == -infinity ? 0.0f : largest;
    total += write_gradient ? exp_block(p, reference[b], p, count)
                            : exp_sum_block(p, reference[b], count);
  }
  const float shift = largest == -infinity ? 0.0f : largest;
  EntropyRow<float> row{__builtin_logf(total) + (shift - label_logit), best};
  if (!write_gradient) return row;
  const float factor = grad_scale / total;
  for (Index begin = 0, b = 0; begin < n; begin += block, ++b) {
    const Index count = n - begin < block ? n - begin : block;
    const float f = reference[b] == shift ? factor : factor * __builtin_expf(reference[b] - shift);
    scale_block(f, x + begin, x + begin, count);
  }
  x[label] = grad_scale * __builtin_expm1f(-row.loss);  // p − 1 without cancellation
  return row;
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
