#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "graft/config.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/layers/concepts.hpp"
#include "graft/layers/low_rank_product.hpp"
#include "graft/quant/int8.hpp"

namespace graft::inline v0_1 {

/// Rows of activations in 8 bits, the columns with outliers left out: x[m, j] ≈ scales[m] ·
/// codes[m, j].
struct Int8Rows {
  std::vector<std::int8_t> codes;  ///< row-major; 0 in columns with outliers
  std::vector<float> scales;       ///< largest magnitude of the row's other entries / 127
  std::vector<Index> outliers;     ///< columns with an entry of at least the threshold, ascending
};

/// A column is an outlier if any |x[m, j]| ≥ threshold; a threshold of 0 takes none out.
GRAFT_KERNEL Int8Rows encode_int8_rows(MatrixView<const float> x, float threshold);

/// y = x Wᵀ + b with W in 8 bits, one scale a row.
///
/// LLM.int8: y[m, o] = c[m] c[o] Σ_{j∉O} x̂[m, j] ŵ[o, j] + Σ_{j∈O} x[m, j] w[o, j] + b[o], with
/// the codes of `encode_int8_rows` and sums of integers; O the columns with outliers, w the decoded
/// weight. dx = dy W through the decoded weight. With `weight_only`, y is the float product with
/// the decoded weight. Source: Dettmers et al. 2022 (arXiv:2208.07339). A handle, copies
/// share the codes.
class Int8Linear {
 public:
  using Scalar = float;
  struct Options {
    float threshold = 6;  ///< of outliers; 0: no column is one
    bool weight_only = false;
  };

  Int8Linear(quant::Int8Matrix weight, Tensor bias, Options options);
  explicit Int8Linear(quant::Int8Matrix weight, Tensor bias = {})
      : Int8Linear(std::move(weight), std::move(bias), Options()) {}

  Index in_features() const { return weight_->columns; }
  Index out_features() const { return weight_->rows; }
  const Tensor& bias() const { return bias_; }
  const quant::Int8Matrix& codes() const { return *weight_; }
  Index weight_bytes() const { return weight_->bytes(); }

  void write_weight(Index first, MatrixView<float> rows) const {
    for (Index i = 0; i < rows.rows(); ++i)
      quant::decode_int8_row(*weight_, first + i, 0, in_features(), rows.row(i));
  }
  void forward(MatrixView<const float> x, MatrixView<float> y,
               const LowRankProduct<float>* term = nullptr) const;
  void backward_input(MatrixView<const float> dy, MatrixView<float> dx,
                      const LowRankProduct<float>* term = nullptr, bool accumulate = true) const;

 private:
  /// Decodes some rows at a time.
  template <class See>
  void each_panel(See&& see) const {
    constexpr Index kRows = 64;
    for (Index first = 0; first < out_features(); first += kRows) {
      auto w = Tensor::empty({std::min(kRows, out_features() - first), in_features()});
      write_weight(first, w.matrix());
      see(first, w);
    }
  }
  void mixed_product(MatrixView<const float> x, MatrixView<float> y) const;

  std::shared_ptr<const quant::Int8Matrix> weight_;
  Tensor bias_;
  Options options_;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/int8_linear_impl.hpp"
#endif
