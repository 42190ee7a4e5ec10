#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "graft/adapters/adapter.hpp"

/// How the tokens of a pass lie in the rows of a hidden state.
namespace graft::inline v0_1 {

namespace detail {

/// Rows of the batch that a pass runs; 1 where nobody says.
template <std::floating_point T>
Index batch_rows(const BasicVar<T>& x) {
  const auto* context = x.tape().template context<ForwardContext>();
  const Index batch = context == nullptr ? 1 : context->batch;
  return batch > 0 && x.rows() % batch == 0 ? batch : 1;
}

/// 1 for the rows of x that are real tokens, 0 for padding; virtual tokens, which come first, count
/// as padding where there is some. Empty: all are real.
template <std::floating_point T>
std::vector<T> real_rows(const BasicVar<T>& x) {
  const auto* context = x.tape().template context<ForwardContext>();
  if (context == nullptr || context->token_mask.empty()) return {};
  const Index batch = context->batch, tokens = x.rows() / batch, own = context->seq_len;
  if (tokens * batch != x.rows() || tokens < own || batch * own != std::ssize(context->token_mask))
    return {};
  std::vector<T> real(static_cast<std::size_t>(x.rows()), T{0});
  for (Index b = 0; b < batch; ++b)
    for (Index t = 0; t < own; ++t)
      if (context->token_mask[static_cast<std::size_t>(b * own + t)] != 0)
        real[static_cast<std::size_t>((b + 1) * tokens - own + t)] = T{1};
  return real;
}

/// Mean over the real tokens of each row of the batch, [batch, width].
template <std::floating_point T>
BasicVar<T> token_means(const BasicVar<T>& x) {
  const Index batch = batch_rows(x), tokens = x.rows() / batch;
  const auto rows = reshape(x, {batch, tokens, x.cols()});
  const auto real = real_rows(x);
  if (real.empty()) return mean_axis(rows, 1);
  auto share = BasicTensor<T>::from(real, {batch, tokens, 1});
  for (Index b = 0; b < batch; ++b) {
    T* row = share.data() + b * tokens;
    const T count = std::accumulate(row, row + tokens, T{0});
    for (Index t = 0; t < tokens; ++t) row[t] /= std::max(count, T{1});
  }
  return sum_axis(mul(rows, x.tape().constant(share)), 1);
}

}  // namespace detail

}  // namespace graft::inline v0_1
