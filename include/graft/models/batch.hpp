#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1::models {

/// Input of one forward pass. Text: ids [batch, seq_len] row by row; images: pixels [batch,
/// channels, height, width].
template <std::floating_point T>
struct BasicBatch {
  Index batch = 0;
  Index seq_len = 0;
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> token_types;  ///< of BERT; empty: zeros
  std::vector<unsigned char> mask;        ///< 1 = a real token; empty: all are
  std::vector<std::int64_t> labels;       ///< [batch, seq_len] or [batch]; -100 does not count
  BasicTensor<T> targets;                 ///< of regression
  BasicTensor<T> pixels;
  std::vector<std::int64_t> task_ids;           ///< [batch], for methods that route by task
  std::vector<std::int64_t> modality;           ///< [batch, seq_len], see ForwardContext
  std::vector<unsigned char> instruction_mask;  ///< [batch, seq_len], see ForwardContext
  BasicTensor<T> visual;  ///< [batch, tokens, width], what an image encoder made of an image for
                          ///< each row
  std::vector<std::string> row_adapters;  ///< [batch], see ForwardContext
  std::vector<Index> prompt_lengths;      ///< [batch], see ForwardContext
};

using Batch = BasicBatch<float>;

}  // namespace graft::inline v0_1::models
