#pragma once

#include <span>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/quant/int8.hpp"
#include "graft/quant/nf4.hpp"
#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

/// What is left of a weight [out, in] in the usual format of so many bits: 4: NF4 in blocks of 64,
/// 8: int8 with one scale a row. @throws ValueError for other numbers of bits
template <std::floating_point T>
BasicTensor<T> quantised_weight(const BasicTensor<T>& weight, Index bits) {
  const std::vector<float> values(weight.begin(), weight.end());
  std::vector<float> decoded;
  if (bits == 4)
    decoded = quant::decode_4bit(quant::encode_4bit(
        values, {.book = quant::CodeBook::nf4, .block = 64, .double_quantised = false}));
  else if (bits == 8)
    decoded = quant::decode_int8(quant::encode_int8(values, weight.rows(), weight.cols()));
  else
    throw ValueError(concat("quantised weight: ", bits, " bits, expected 4 or 8"));
  return BasicTensor<T>::from(decoded, weight.shape());
}

}  // namespace graft::inline v0_1
