#pragma once

#include <cstdint>

#include "graft/base/aligned_buffer.hpp"
#include "graft/kernels/frozen_weight.hpp"
#include "graft/kernels/isa.hpp"

namespace graft::inline v0_1::kernels {

/// A frozen weight laid out for products: panels of 32 outputs, [block of
/// inputs][panel][input][32].
///
/// Forward products read them straight; backward products transpose them on the fly (10 to 20 %
/// slower at 256 rows) or read a second set, panels of 32 inputs. Memory: 4 · in · out bytes for a
/// set, both sizes of the panel side rounded up to 32.
class PackedWeights {
 public:
  PackedWeights() = default;
  /// Packs `weight`, which is dense or quantised; reads it once for each set. With Compute::bf16,
  /// values are rounded to the nearest bf16 and every product with the panels is a bf16 product.
  /// @throws ValueError if it has neither form, ShapeError if a size is negative.
  explicit PackedWeights(const FrozenWeight& weight, bool backward = false,
                         Compute compute = Compute::f32);

  Index out() const noexcept { return out_; }
  Index in() const noexcept { return in_; }
  Compute compute() const noexcept { return compute_; }
  bool has_backward() const noexcept { return !backward_.empty() || !backward_words_.empty(); }
  std::size_t bytes() const noexcept {
    return 4 *
           (forward_.size() + backward_.size() + forward_words_.size() + backward_words_.size());
  }

  /// Panels of Wᵀ (in × out) and, if there, of W (out × in); null if they are bf16.
  const float* forward_panels() const noexcept { return forward_.data(); }
  const float* backward_panels() const noexcept { return backward_.data(); }
  /// The same of bf16 values: [block of inputs][panel][pair of inputs][32], the first of a pair in
  /// the low half of the word; null if they are f32.
  const std::uint32_t* forward_words() const noexcept { return forward_words_.data(); }
  const std::uint32_t* backward_words() const noexcept { return backward_words_.data(); }

 private:
  Index out_ = 0;
  Index in_ = 0;
  Compute compute_ = Compute::f32;
  AlignedBuffer<float> forward_;
  AlignedBuffer<float> backward_;
  AlignedBuffer<std::uint32_t> forward_words_;
  AlignedBuffer<std::uint32_t> backward_words_;
};

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/packed_weights_impl.hpp"
#endif
