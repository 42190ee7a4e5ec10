#pragma once

#include <memory>
#include <vector>

#include "graft/config.hpp"
#include "graft/kernels/frozen.hpp"
#include "graft/layers/concepts.hpp"
#include "graft/layers/low_rank_product.hpp"
#include "graft/quant/nf4.hpp"

namespace graft::inline v0_1 {

/// y = x Wᵀ + b with W in 4 bits a value (NF4 or FP4, blocks of the flattened weight): panels of it
/// are decoded inside the product, so W is never whole in f32. dx = dy W goes through the decoded
/// weight. The base of QLoRA (Dettmers et al. 2023); a handle, copies share the codes.
class Code4Linear {
 public:
  using Scalar = float;

  /// @throws ShapeError if the codes are not out · in, or the bias not out values.
  Code4Linear(quant::Code4Array weight, Index out_features, Index in_features, Tensor bias = {});

  Index in_features() const { return in_; }
  Index out_features() const { return out_; }
  const Tensor& bias() const { return bias_; }
  const quant::Code4Array& codes() const { return store_->weight; }
  /// Bytes of the weight as it is kept.
  Index weight_bytes() const { return store_->weight.bytes(); }

  void write_weight(Index first, MatrixView<float> rows) const {
    for (Index i = 0; i < rows.rows(); ++i)
      decode(&store_->rows[static_cast<std::size_t>(first + i)], 0, in_, rows.row(i));
  }
  void forward(MatrixView<const float> x, MatrixView<float> y,
               const LowRankProduct<float>* term = nullptr) const {
    const auto low = detail::kernel_term(term);
    kernels::frozen_forward(frozen(), x.data(), x.rows(), x.row_stride(), bias_.data(), y.data(),
                            y.row_stride(), false, term ? &low : nullptr);
  }
  void backward_input(MatrixView<const float> dy, MatrixView<float> dx,
                      const LowRankProduct<float>* term = nullptr, bool accumulate = true) const {
    const auto low = detail::kernel_term(term);
    kernels::frozen_backward_input(frozen(), dy.data(), dy.rows(), dy.row_stride(), dx.data(),
                                   dx.row_stride(), accumulate, term ? &low : nullptr);
  }

 private:
  struct Row {
    const quant::Code4Array* weight;
    Index first;
  };
  struct Store {
    quant::Code4Array weight;
    std::vector<Row> rows;  // what the kernels take for the blocks of a row
  };
  static void decode(const void* row, Index first, Index count, float* out) {
    const auto* r = static_cast<const Row*>(row);
    quant::decode_4bit(*r->weight, r->first + first,
                       std::span<float>(out, static_cast<std::size_t>(count)));
  }
  kernels::FrozenWeight frozen() const;
  Index out_ = 0, in_ = 0;
  Tensor bias_;
  std::shared_ptr<const Store> store_;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/code4_linear_impl.hpp"
#endif
