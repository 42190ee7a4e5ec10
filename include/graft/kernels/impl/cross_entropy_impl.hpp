#pragma once

#include <algorithm>
#include <cmath>

#include "graft/base/thread_pool.hpp"
#include "graft/kernels/cross_entropy.hpp"
#include "graft/kernels/impl/vector_math.hpp"

#define GRAFT_FOREACH_FILE "graft/kernels/impl/cross_entropy_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::kernels {
namespace detail {

inline float row_maximum(const float* x, Index n) { return GRAFT_DISPATCH(row_maximum)(x, n); }
inline double row_maximum(const double* x, Index n) { return *std::max_element(x, x + n); }
inline float row_exp_sum(const float* x, Index n, float top) { return GRAFT_DISPATCH(row_exp_sum)(x, n, top); }
inline double row_exp_sum(const double* x, Index n, double top) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += std::exp(x[i] - top);
  return sum;
}
inline void row_softmax(float* x, Index n, float log_sum, float factor) {
  GRAFT_DISPATCH(row_softmax)(x, n, log_sum, factor);
}
inline void row_softmax(double* x, Index n, double log_sum, double factor) {
  for (Index i = 0; i < n; ++i) x[i] = factor * std::exp(x[i] - log_sum);
}

}  // namespace detail

template <class T>
void cross_entropy_rows(T* logits, Index rows, Index vocab, Index ld, const std::int64_t* labels,
                        std::type_identity_t<T> grad_scale, bool write_gradient, std::type_identity_t<T>* loss,
                        unsigned char* correct) {
  const auto row = [=](Index r) {
    T* x = logits + r * ld;
    if (labels[r] == kIgnoredLabel) {
      loss[r] = T{0};
      if (correct != nullptr) correct[r] = 0;
      if (write_gradient) std::fill_n(x, vocab, T{0});
      return;
    }
    const T top = detail::row_maximum(x, vocab);
    const T own = x[labels[r]];
    const T log_sum = top + std::log(detail::row_exp_sum(x, vocab, top));
    loss[r] = log_sum - own;
    if (correct != nullptr) correct[r] = own == top && std::find(x, x + labels[r], top) == x + labels[r];
    if (!write_gradient) return;
    detail::row_softmax(x, vocab, log_sum, grad_scale);
    x[labels[r]] = grad_scale * std::expm1(own - log_sum);
  };
  if (rows * vocab < 65536) {
    for (Index r = 0; r < rows; ++r) row(r);
  } else {
    ThreadPool::global().parallel_for(rows, row);
  }
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template void cross_entropy_rows<float>(float*, Index, Index, Index, const std::int64_t*, float, bool, float*,
                                        unsigned char*);
template void cross_entropy_rows<double>(double*, Index, Index, Index, const std::int64_t*, double, bool, double*,
                                         unsigned char*);
#endif

}  // namespace graft::kernels
