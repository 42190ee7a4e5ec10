#pragma once

#include <memory>

#include "graft/config.hpp"
#include "graft/kernels/frozen.hpp"
#include "graft/layers/concepts.hpp"
#include "graft/layers/low_rank_product.hpp"
#include "graft/quant/dot.hpp"
#include "graft/quant/dot_int8.hpp"
#include "graft/quant/format.hpp"
#include "graft/quant/panel.hpp"

namespace graft::inline v0_1 {

/// How a frozen layer takes its input in forward products of a few rows (up to 8), which generation
/// is made of: as it is, or rounded to 8 bits by blocks of 32 (see kernels::quantise_int8_row), so
/// that stored codes are multiplied as integers. That costs a few 10⁻³ of a result and two to three
/// times less than decoding the weight. Products of more rows and gradients do not round.
enum class Activations { f32, int8 };

/// y = x Wᵀ + b with W kept in a quantised format: panels of it are decoded inside the product, so
/// W is never whole in f32.
///
/// The blocks are those of GGUF rows, out_features rows of quant::row_bytes(format, in_features)
/// bytes each, shared with whoever holds them (a mapped file).
class QuantizedLinear {
 public:
  using Scalar = float;

  /// @throws ValueError if in_features is no multiple of the format's block, ShapeError for a bias
  /// of another size.
  QuantizedLinear(quant::Format format, const void* blocks, Index out_features, Index in_features,
                  Tensor bias = {}, std::shared_ptr<const void> keep_alive = nullptr);

  Index in_features() const { return in_; }
  Index out_features() const { return out_; }
  quant::Format format() const { return format_; }
  const Tensor& bias() const { return bias_; }
  /// Bytes of the weight as it is kept.
  Index weight_bytes() const { return row_bytes_ * out_; }
  const void* blocks() const { return blocks_; }

  /// How products with the layer round their factors.
  kernels::Compute compute() const { return compute_; }
  /// The same layer, with the same blocks, that multiplies by `compute`.
  QuantizedLinear with_compute(kernels::Compute compute) const {
    QuantizedLinear layer = *this;
    layer.compute_ = compute;
    return layer;
  }

  /// How forward products of few rows take their input; see Activations.
  Activations activations() const { return activations_; }
  /// The same layer, with the same blocks, that takes them so.
  QuantizedLinear with_activations(Activations activations) const {
    QuantizedLinear layer = *this;
    layer.activations_ = activations;
    return layer;
  }
  /// The weight as kernels take it; it lives as long as the layer.
  kernels::FrozenWeight frozen_weight() const;

  void write_weight(Index first, MatrixView<float> rows) const {
    const auto decode = quant::row_decoder(format_);
    for (Index i = 0; i < rows.rows(); ++i)
      decode(blocks_ + (first + i) * row_bytes_, 0, in_, rows.row(i));
  }
  void forward(MatrixView<const float> x, MatrixView<float> y,
               const LowRankProduct<float>* term = nullptr) const {
    const auto low = detail::kernel_term(term);
    kernels::frozen_forward(frozen_weight(), x.data(), x.rows(), x.row_stride(), bias_.data(),
                            y.data(), y.row_stride(), false, term ? &low : nullptr, compute_);
  }
  void backward_input(MatrixView<const float> dy, MatrixView<float> dx,
                      const LowRankProduct<float>* term = nullptr, bool accumulate = true) const;

 private:
  quant::Format format_;
  const std::byte* blocks_;
  Index out_;
  Index in_;
  Index row_bytes_;
  Tensor bias_;
  std::shared_ptr<const void> keep_alive_;
  kernels::Compute compute_ = kernels::Compute::f32;
  Activations activations_ = Activations::f32;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/quantized_linear_impl.hpp"
#endif
