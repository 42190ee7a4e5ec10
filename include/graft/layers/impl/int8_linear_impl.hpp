#pragma once

#include <cmath>

#include "graft/layers/int8_linear.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL Int8Rows encode_int8_rows(MatrixView<const float> x, float threshold) {
  const Index rows = x.rows(), columns = x.cols();
  Int8Rows result;
  result.codes.resize(static_cast<std::size_t>(rows * columns));
  std::vector<bool> outlier(static_cast<std::size_t>(columns), false);
  for (Index j = 0; threshold > 0 && j < columns; ++j) {
    for (Index m = 0; m < rows && !outlier[static_cast<std::size_t>(j)]; ++m)
      outlier[static_cast<std::size_t>(j)] = std::abs(x(m, j)) >= threshold;
    if (outlier[static_cast<std::size_t>(j)]) result.outliers.push_back(j);
  }
  for (Index m = 0; m < rows; ++m) {
    float largest = 0;
    for (Index j = 0; j < columns; ++j)
      if (!outlier[static_cast<std::size_t>(j)]) largest = std::max(largest, std::abs(x(m, j)));
    result.scales.push_back(largest / 127);
    for (Index j = 0; j < columns; ++j)
      result.codes[static_cast<std::size_t>(m * columns + j)] =
          largest == 0.0F || outlier[static_cast<std::size_t>(j)]
              ? std::int8_t{0}
              : static_cast<std::int8_t>(std::nearbyint(127.0 * static_cast<double>(x(m, j)) /
                                                        static_cast<double>(largest)));
  }
  return result;
}

GRAFT_KERNEL Int8Linear::Int8Linear(quant::Int8Matrix weight, Tensor bias, Options options)
    : weight_(std::make_shared<const quant::Int8Matrix>(std::move(weight))),
      bias_(std::move(bias)),
      options_(options) {
  if (bias_ && bias_.size() != weight_->rows)
    throw ShapeError(
        concat("Int8Linear: bias ", bias_.shape().text(), ", expected [", weight_->rows, "]"));
  if (weight_->columns > 133000)
    throw ValueError(concat("Int8Linear: sums over ", weight_->columns,
                            " inputs do not fit 32 bits, expected at most 133000"));
}

GRAFT_KERNEL void Int8Linear::forward(MatrixView<const float> x, MatrixView<float> y,
                                      const LowRankProduct<float>* term) const {
  if (options_.weight_only)
    each_panel([&](Index first, const Tensor& w) {
      kernels::gemm(false, true, x.rows(), w.rows(), w.cols(), 1.0F, x.data(), x.row_stride(),
                    w.data(), w.cols(), 0.0F, y.data() + first, y.row_stride());
    });
  else
    mixed_product(x, y);
  if (bias_)
    for (Index m = 0; m < y.rows(); ++m)
      for (Index o = 0; o < y.cols(); ++o) y(m, o) += bias_[o];
  detail::add_low_rank(term, y);
}

GRAFT_KERNEL void Int8Linear::backward_input(MatrixView<const float> dy, MatrixView<float> dx,
                                             const LowRankProduct<float>* term,
                                             bool accumulate) const {
  bool more = accumulate;
  each_panel([&](Index first, const Tensor& w) {
    kernels::gemm(false, false, dy.rows(), w.cols(), w.rows(), 1.0F, dy.data() + first,
                  dy.row_stride(), w.data(), w.cols(), more ? 1.0F : 0.0F, dx.data(),
                  dx.row_stride());
    more = true;
  });
  detail::add_low_rank(term, dx);
}

GRAFT_KERNEL void Int8Linear::mixed_product(MatrixView<const float> x, MatrixView<float> y) const {
  const Index in = in_features();
  const auto rows = encode_int8_rows(x, options_.threshold);
  for (Index m = 0; m < x.rows(); ++m) {
    const std::int8_t* a = rows.codes.data() + m * in;
    for (Index o = 0; o < out_features(); ++o) {
      const std::int8_t* b = weight_->codes.data() + o * in;
      std::int32_t sum = 0;
      for (Index j = 0; j < in; ++j) sum += static_cast<std::int32_t>(a[j]) * b[j];
      const float scale = weight_->scales[static_cast<std::size_t>(o)];
      float value = rows.scales[static_cast<std::size_t>(m)] * scale * static_cast<float>(sum);
      for (const Index j : rows.outliers) value += x(m, j) * scale * static_cast<float>(b[j]);
      y(m, o) = value;
    }
  }
}

}  // namespace graft::inline v0_1
