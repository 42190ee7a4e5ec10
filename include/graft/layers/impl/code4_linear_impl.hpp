#pragma once

#include <utility>

#include "graft/layers/code4_linear.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL Code4Linear::Code4Linear(quant::Code4Array weight, Index out_features,
                                      Index in_features, Tensor bias)
    : bias_(std::move(bias)) {
  if (out_features < 0 || in_features < 0 || weight.size != out_features * in_features)
    throw ShapeError(
        concat("Code4Linear: ", weight.size, " codes for [", out_features, ", ", in_features, "]"));
  if (bias_ && bias_.size() != out_features)
    throw ShapeError(
        concat("Code4Linear: bias ", bias_.shape().text(), ", expected [", out_features, "]"));
  auto store = std::make_shared<Store>();
  store->weight = std::move(weight);
  store->rows.reserve(static_cast<std::size_t>(out_features));
  for (Index o = 0; o < out_features; ++o) store->rows.push_back({&store->weight, o * in_features});
  out_ = out_features;
  in_ = in_features;
  store_ = std::move(store);
}

GRAFT_KERNEL kernels::FrozenWeight Code4Linear::frozen() const {
  kernels::FrozenWeight w;
  w.out = out_;
  w.in = in_;
  w.blocks = store_->rows.data();
  w.row_bytes = static_cast<Index>(sizeof(Row));
  w.decode = &decode;
  return w;
}

}  // namespace graft::inline v0_1
