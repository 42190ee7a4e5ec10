#pragma once

#include "graft/base/aligned_buffer.hpp"
#include "graft/kernels/frozen_weight.hpp"
#include "graft/kernels/isa.hpp"

namespace graft::kernels {

/// A frozen weight laid out for products: panels of 32 outputs, [block of
/// inputs][panel][input][32].
///
/// Forward products read them straight; backward products transpose them on the fly (10 to 20 %
/// slower at 256 rows) or read a second set, panels of 32 inputs. Memory: 4 · in · out bytes for a
/// set, both sizes of the panel side rounded up to 32.
class PackedWeights {
 public:
  PackedWeights() = default;
  /// Packs `weight`, which is dense or quantised; reads it once for each set.
  /// @throws ValueError if it has neither form, ShapeError if a size is negative.
  explicit PackedWeights(const FrozenWeight& weight, bool backward = false);

  Index out() const noexcept { return out_; }
  Index in() const noexcept { return in_; }
  bool has_backward() const noexcept { return backward_.data() != nullptr; }
  std::size_t bytes() const noexcept {
    return (forward_.size() + backward_.size()) * sizeof(float);
  }

  /// Panels of Wᵀ (in × out) and, if there, of W (out × in).
  const float* forward_panels() const noexcept { return forward_.data(); }
  const float* backward_panels() const noexcept { return backward_.data(); }

 private:
  Index out_ = 0;
  Index in_ = 0;
  AlignedBuffer<float> forward_;
  AlignedBuffer<float> backward_;
};

}  // namespace graft::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/packed_weights_impl.hpp"
#endif
