#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "graft/base/error.hpp"
#include "graft/models/batch.hpp"

namespace graft::inline v0_1::models {

/// How the hidden states of a text become one vector: their mean over the real tokens, the state of
/// the first token, or the largest value in each place over the real tokens.
enum class Pooling { mean, cls, max };

/// Errors: ValueError for another name than mean, cls and max.
inline Pooling pooling_named(const std::string& name) {
  if (name == "mean") return Pooling::mean;
  if (name == "cls") return Pooling::cls;
  if (name == "max") return Pooling::max;
  throw ValueError(concat("pooling '", name, "' is not one of mean, cls, max"));
}

/// One vector a row from hidden states h [batch, tokens, hidden] of `batch`; tokens before those of
/// the batch (virtual ones) do not count. With `normalize` each is divided by its length.
/// [batch, hidden]
template <std::floating_point T>
BasicTensor<T> pooled(const BasicTensor<T>& h, const BasicBatch<T>& batch,
                      Pooling pooling = Pooling::mean, bool normalize = true) {
  const Index tokens = h.dim(1), extra = tokens - batch.seq_len, d = h.dim(2);
  auto y = BasicTensor<T>::zeros({batch.batch, d});
  for (Index b = 0; b < batch.batch; ++b) {
    Index count = 0;
    for (Index t = extra; t < tokens; ++t) {
      const auto at = static_cast<std::size_t>(b * batch.seq_len + t - extra);
      if (!batch.mask.empty() && batch.mask[at] == 0) continue;
      if (pooling == Pooling::cls && count > 0) break;
      for (Index i = 0; i < d; ++i) {
        const T v = h[(b * tokens + t) * d + i];
        y(b, i) = pooling != Pooling::max || count == 0 ? y(b, i) + v : std::max(y(b, i), v);
      }
      ++count;
    }
    T scale = pooling == Pooling::mean ? T{1} / static_cast<T>(std::max<Index>(count, 1)) : T{1};
    if (normalize) {
      T length = 0;
      for (Index i = 0; i < d; ++i) length += y(b, i) * y(b, i);
      scale = T{1} / std::max(std::sqrt(length), static_cast<T>(1e-12));
    }
    for (Index i = 0; i < d; ++i) y(b, i) *= scale;
  }
  return y;
}

}  // namespace graft::inline v0_1::models
