#pragma once

#include <cmath>
#include <limits>

#include "graft/base/profile.hpp"
#include "graft/kernels/cross_entropy.hpp"
#include "graft/kernels/impl/chunks.hpp"
#include "graft/kernels/impl/elementwise_impl.hpp"

namespace graft::inline v0_1::kernels::detail {

template <class T>
struct EntropyRow {
  T loss;
  Index best;
};
inline constexpr Index kEntropyBlocks = 256;

}  // namespace graft::inline v0_1::kernels::detail

#define GRAFT_FOREACH_FILE "graft/kernels/impl/cross_entropy_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::kernels::detail {

inline EntropyRow<float> cross_entropy_row(float* x, Index n, Index label, float grad_scale,
                                           bool write_gradient) {
  return GRAFT_DISPATCH(cross_entropy_row)(x, n, label, grad_scale, write_gradient);
}
inline EntropyRow<double> cross_entropy_row(double* x, Index n, Index label, double grad_scale,
                                            bool write_gradient) {
  Index best = 0;
  for (Index i = 1; i < n; ++i)
    if (x[i] > x[best]) best = i;
  const double shift = std::isinf(x[best]) && x[best] < 0 ? 0 : x[best];
  double total = 0;
  for (Index i = 0; i < n; ++i) total += std::exp(x[i] - shift);
  const EntropyRow<double> row{std::log(total) + (shift - x[label]), best};
  if (write_gradient) {
    for (Index i = 0; i < n; ++i) x[i] = std::exp(x[i] - shift) * (grad_scale / total);
    x[label] = grad_scale * std::expm1(-row.loss);
  }
  return row;
}

}  // namespace graft::inline v0_1::kernels::detail

namespace graft::inline v0_1::kernels {

template <class T>
void cross_entropy_rows(T* logits, Index rows, Index vocab, Index ld, const std::int64_t* labels,
                        std::type_identity_t<T> grad_scale, bool write_gradient,
                        std::type_identity_t<T>* loss, unsigned char* correct) {
  const ProfileScope profile(
      "cross entropy", 0, static_cast<double>(rows * vocab) * (write_gradient ? 2 : 1) * sizeof(T));
  detail::for_rows(rows, vocab, [&](Index first, Index count) {
    for (Index r = first; r < first + count; ++r) {
      T* const x = logits + r * ld;
      if (labels[r] == kIgnoredLabel) {
        if (write_gradient) detail::fill_block(T{0}, x, vocab);
        if (loss != nullptr) loss[r] = T{0};
        if (correct != nullptr) correct[r] = 0;
        continue;
      }
      const auto label = static_cast<Index>(labels[r]);
      const auto row = detail::cross_entropy_row(x, vocab, label, grad_scale, write_gradient);
      if (loss != nullptr) loss[r] = row.loss;
      if (correct != nullptr) correct[r] = row.best == label ? 1 : 0;
    }
  });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template void cross_entropy_rows<float>(float*, Index, Index, Index, const std::int64_t*, float,
                                        bool, float*, unsigned char*);
template void cross_entropy_rows<double>(double*, Index, Index, Index, const std::int64_t*, double,
                                         bool, double*, unsigned char*);
#endif

}  // namespace graft::inline v0_1::kernels
