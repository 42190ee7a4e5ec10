#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "graft/kernels/attention.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/kernels/impl/gemm_impl.hpp"

namespace graft::kernels::detail {

inline constexpr Index kAttentionQueries = 64;
inline constexpr Index kAttentionKeys = 64;

template <class T>
struct AttentionPlan {
  AttentionArgs<T> args{};
  Index v_dim = 0, k_width = 0, v_width = 0;  // widths: head sizes rounded up to whole panels
  Index query_blocks = 0;
  T* out = nullptr;
  const T* y = nullptr;
  Index ldo = 0;
  T* lse = nullptr;
  const T* dout = nullptr;
  Index lddo = 0;
  T *dq = nullptr, *dk = nullptr, *dv = nullptr;
  Index lddq = 0, lddk = 0, lddv = 0;
};

/// Keys [first, last) that some of the queries q0 … q0 + rows − 1 may see.
template <class T>
std::pair<Index, Index> visible_keys(const AttentionArgs<T>& a, Index q0, Index rows) noexcept {
  const Index shift = a.kv_len - a.q_len;
  const Index last = a.causal ? std::clamp<Index>(q0 + rows + shift, 0, a.kv_len) : a.kv_len;
  const Index first = a.window > 0 ? std::clamp<Index>(q0 + shift - a.window + 1, 0, last) : 0;
  return {first, last};
}

}  // namespace graft::kernels::detail

#define GRAFT_FOREACH_FILE "graft/kernels/impl/attention_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::kernels {
namespace detail {

inline bool visible(const AttentionArgs<double>& a, Index b, Index i, Index j) noexcept {
  const Index at = i + a.kv_len - a.q_len;
  return !(a.causal && j > at) && !(a.window > 0 && j <= at - a.window) &&
         (a.key_mask == nullptr || a.key_mask[b * a.kv_len + j] != 0);
}

/// The score of a query and a key, and its slope with respect to scale · q · k.
inline std::pair<double, double> score_of(const AttentionArgs<double>& a, Index b, Index h, Index i, Index j) noexcept {
  const Index g = h / (a.heads / a.kv_heads);
  const double* q = a.q + (b * a.q_len + i) * a.ldq + h * a.head_dim;
  const double* k = a.k + (b * a.kv_len + j) * a.ldk + g * a.head_dim;
  double s = 0, slope = 1;
  for (Index c = 0; c < a.head_dim; ++c) s += q[c] * k[c];
  s *= a.scale;
  if (a.softcap > 0) {
    const double t = std::tanh(s / a.softcap);
    s = a.softcap * t;
    slope = 1 - t * t;
  }
  if (a.bias != nullptr) s += a.bias[(h * a.q_len + i) * a.kv_len + j];
  return {s, slope};
}

inline void forward_row(const AttentionPlan<double>& plan, Index b, Index h, Index i) noexcept {
  const AttentionArgs<double>& a = plan.args;
  const Index g = h / (a.heads / a.kv_heads), e = plan.v_dim;
  double* out = plan.out + (b * a.q_len + i) * plan.ldo + h * e;
  std::fill_n(out, e, 0.0);
  double high = -std::numeric_limits<double>::infinity(), sum = 0;
  for (Index j = 0; j < a.kv_len; ++j)
    if (visible(a, b, i, j)) high = std::max(high, score_of(a, b, h, i, j).first);
  for (Index j = 0; j < a.kv_len; ++j) {
    if (!visible(a, b, i, j)) continue;
    const double p = std::exp(score_of(a, b, h, i, j).first - high);
    sum += p;
    for (Index c = 0; c < e; ++c) out[c] += p * a.v[(b * a.kv_len + j) * a.ldv + g * e + c];
  }
  if (sum > 0)
    for (Index c = 0; c < e; ++c) out[c] /= sum;
  plan.lse[(b * a.heads + h) * a.q_len + i] = sum > 0 ? high + std::log(sum) : high;
}

inline void backward_row(const AttentionPlan<double>& plan, Index b, Index h, Index i) noexcept {
  const AttentionArgs<double>& a = plan.args;
  const Index g = h / (a.heads / a.kv_heads), d = a.head_dim, e = plan.v_dim;
  const double lse = plan.lse[(b * a.heads + h) * a.q_len + i];
  if (std::isinf(lse)) return;
  const double* dy = plan.dout + (b * a.q_len + i) * plan.lddo + h * e;
  const double* y = plan.y + (b * a.q_len + i) * plan.ldo + h * e;
  double delta = 0;
  for (Index c = 0; c < e; ++c) delta += dy[c] * y[c];
  for (Index j = 0; j < a.kv_len; ++j) {
    if (!visible(a, b, i, j)) continue;
    const auto [s, slope] = score_of(a, b, h, i, j);
    const double p = std::exp(s - lse);
    double dp = 0;
    for (Index c = 0; c < e; ++c) dp += dy[c] * a.v[(b * a.kv_len + j) * a.ldv + g * e + c];
    const double ds = p * (dp - delta) * slope * a.scale;
    for (Index c = 0; c < d; ++c) {
      if (plan.dq != nullptr)
        plan.dq[(b * a.q_len + i) * plan.lddq + h * d + c] += ds * a.k[(b * a.kv_len + j) * a.ldk + g * d + c];
      if (plan.dk != nullptr)
        plan.dk[(b * a.kv_len + j) * plan.lddk + g * d + c] += ds * a.q[(b * a.q_len + i) * a.ldq + h * d + c];
    }
    if (plan.dv != nullptr)
      for (Index c = 0; c < e; ++c) plan.dv[(b * a.kv_len + j) * plan.lddv + g * e + c] += p * dy[c];
  }
}

template <class T>
AttentionPlan<T> attention_plan(const AttentionArgs<T>& args) noexcept {
  AttentionPlan<T> plan;
  plan.args = args;
  plan.v_dim = args.v_head_dim > 0 ? args.v_head_dim : args.head_dim;
  plan.k_width = round_up(args.head_dim, kPanel);
  plan.v_width = round_up(plan.v_dim, kPanel);
  plan.query_blocks = ceil_div(args.q_len, kAttentionQueries);
  return plan;
}

}  // namespace detail

template <class T>
void attention_forward(const AttentionArgs<T>& args, T* out, Index ldo, T* lse) {
  auto plan = detail::attention_plan(args);
  plan.out = out;
  plan.ldo = ldo;
  plan.lse = lse;
  if (args.q_len <= 0 || args.batch <= 0) return;
  auto& pool = ThreadPool::global();
  if constexpr (std::is_same_v<T, double>) {
    pool.parallel_for(args.batch * args.heads, [&](Index task) {
      for (Index i = 0; i < args.q_len; ++i) detail::forward_row(plan, task / args.heads, task % args.heads, i);
    });
  } else {
    using detail::kAttentionKeys, detail::kAttentionQueries;
    const Index group = args.heads / args.kv_heads;
    const Index scratch = kAttentionKeys * (args.head_dim + plan.v_width) + kAttentionQueries * kAttentionKeys +
                          group * kAttentionQueries * (plan.v_width + 2);
    const auto run = GRAFT_DISPATCH(attention_forward_task);
    pool.parallel_for(args.batch * args.kv_heads * plan.query_blocks,
                      [&](Index task) { run(plan, task, detail::thread_scratch(scratch)); });
  }
}

template <class T>
void attention_backward(const AttentionArgs<T>& args, const T* out, Index ldo, const T* lse, const T* dout, Index lddo,
                        T* dq, Index lddq, T* dk, Index lddk, T* dv, Index lddv) {
  auto plan = detail::attention_plan(args);
  plan.y = out;
  plan.ldo = ldo;
  plan.lse = const_cast<T*>(lse);  // read only here
  plan.dout = dout;
  plan.lddo = lddo;
  plan.dq = dq;
  plan.lddq = lddq;
  plan.dk = dk;
  plan.lddk = lddk;
  plan.dv = dv;
  plan.lddv = lddv;
  if (args.q_len <= 0 || args.batch <= 0) return;
  auto& pool = ThreadPool::global();
  if constexpr (std::is_same_v<T, double>) {
    pool.parallel_for(args.batch * args.kv_heads, [&](Index task) {
      const Index group = args.heads / args.kv_heads;
      for (Index m = 0; m < group; ++m)
        for (Index i = 0; i < args.q_len; ++i)
          detail::backward_row(plan, task / args.kv_heads, task % args.kv_heads * group + m, i);
    });
  } else {
    using detail::kAttentionKeys, detail::kAttentionQueries;
    const Index group = args.heads / args.kv_heads;
    const Index scratch = kAttentionKeys * (args.head_dim + plan.v_dim + plan.k_width) +
                          kAttentionQueries * (plan.k_width + plan.v_width + 2 * kAttentionKeys) + group * args.q_len;
    const auto run = GRAFT_DISPATCH(attention_backward_task);
    pool.parallel_for(args.batch * args.kv_heads,
                      [&](Index task) { run(plan, task, detail::thread_scratch(scratch)); });
  }
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_ATTENTION(T)                                                                                     \
  template void attention_forward<T>(const AttentionArgs<T>&, T*, Index, T*);                                  \
  template void attention_backward<T>(const AttentionArgs<T>&, const T*, Index, const T*, const T*, Index, T*, \
                                      Index, T*, Index, T*, Index);
GRAFT_ATTENTION(float)
GRAFT_ATTENTION(double)
#undef GRAFT_ATTENTION
#endif

}  // namespace graft::kernels
