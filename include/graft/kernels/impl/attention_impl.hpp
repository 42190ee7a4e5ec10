#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "graft/base/profile.hpp"
#include "graft/kernels/attention.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/kernels/impl/bf16_impl.hpp"
#include "graft/kernels/impl/chunks.hpp"
#include "graft/kernels/impl/elementwise_impl.hpp"
#include "graft/kernels/impl/gemm_impl.hpp"
#include "graft/kernels/impl/vector_math.hpp"

namespace graft::inline v0_1::kernels::detail {

/// Columns of a block: queries of all heads that share a key/value head, ordered by query, then
/// head.
inline constexpr Index kAttentionColumns = 64;
/// Keys of a block.
inline constexpr Index kAttentionKeys = 64;
/// Up to so many columns the whole problem runs by dot products, in longer blocks of keys.
inline constexpr Index kAttentionFewColumns = 8;
inline constexpr Index kAttentionFewKeys = 256;
inline constexpr Index kAttentionFewAhead = 32;
/// Keys of a part, at least.
inline constexpr Index kAttentionFewPart = 64;
/// The backward pass cuts the columns so that there are at least so many tasks.
inline constexpr Index kAttentionTasks = 16;

struct AttentionColumns {
  Index b = 0, g = 0, first = 0, count = 0;
  Index key_begin = 0, key_end = 0;  // keys that some column sees
  std::int32_t first_key[kAttentionColumns], last_key[kAttentionColumns];  // those a column sees
  // Of the columns of a panel: the latest first and the earliest last key.
  Index panel_first[kAttentionColumns / kPanel], panel_last[kAttentionColumns / kPanel];
};

template <class T>
struct AttentionPlan {
  AttentionArgs<T> args{};
  Index v_dim = 0, group = 0, columns = 0, blocks = 0;
  T query_factor{};  // what queries are multiplied by before the product with the keys
  T* out = nullptr;
  const T* y = nullptr;
  Index ldo = 0;
  T* lse = nullptr;
  const T* dout = nullptr;
  Index lddo = 0;
  T *dq = nullptr, *dk = nullptr, *dv = nullptr, *dbias = nullptr;
  Index lddq = 0, lddk = 0, lddv = 0;

  Index head_of(const AttentionColumns& at, Index c) const noexcept {
    return at.g * group + (at.first + c) % group;
  }
  Index row_of(const AttentionColumns& at, Index c) const noexcept {
    return at.b * args.q_len + (at.first + c) / group;
  }
  /// Where the biases of a column's scores begin.
  Index bias_of(const AttentionColumns& at, Index c) const noexcept {
    return (head_of(at, c) * args.q_len + (at.first + c) / group) * args.kv_len;
  }
  /// The backward pass of row b of the batch alone.
  AttentionPlan of_row(Index b) const noexcept {
    AttentionPlan one = *this;
    const Index queries = b * args.q_len, keys = b * args.kv_len;
    one.args.batch = 1;
    one.args.q += queries * args.ldq;
    one.args.k += keys * args.ldk;
    one.args.v += keys * args.ldv;
    if (args.key_mask != nullptr) one.args.key_mask += keys;
    one.y += queries * ldo;
    one.lse += queries * args.heads;
    one.dout += queries * lddo;
    if (dq != nullptr) one.dq += queries * lddq;
    if (dk != nullptr) one.dk += keys * lddk;
    if (dv != nullptr) one.dv += keys * lddv;
    return one;
  }
  Index lse_of(const AttentionColumns& at, Index c) const noexcept {
    return (at.b * args.heads + head_of(at, c)) * args.q_len + (at.first + c) / group;
  }
  /// First and last key that the causal mask and the window leave to a query; last < first where
  /// none.
  Index first_key(Index i) const noexcept {
    if (args.window <= 0) return 0;
    return std::max<Index>(0, i + args.kv_len - args.q_len - args.window + 1);
  }
  Index last_key(Index i) const noexcept {
    return args.causal ? i + args.kv_len - args.q_len : args.kv_len - 1;
  }

  /// For attention_forward_few nothing is filled in beyond the last column.
  AttentionColumns columns_of(Index pair, Index block, bool few = false) const noexcept {
    AttentionColumns at;
    at.b = pair / args.kv_heads;
    at.g = pair % args.kv_heads;
    at.first = block * kAttentionColumns;
    at.count = std::min(kAttentionColumns, columns - at.first);
    at.key_begin = first_key(at.first / group);
    at.key_end = std::min(args.kv_len, last_key((at.first + at.count - 1) / group) + 1);
    if (args.key_mask != nullptr) {  // padding at either side costs nothing
      const unsigned char* mask = args.key_mask + at.b * args.kv_len;
      while (at.key_begin < at.key_end && mask[at.key_begin] == 0) ++at.key_begin;
      while (at.key_begin < at.key_end && mask[at.key_end - 1] == 0) --at.key_end;
    }
    for (Index c = 0; c < (few ? at.count : kAttentionColumns); ++c) {
      const Index i = (at.first + std::min(c, at.count - 1)) / group;
      at.first_key[c] = static_cast<std::int32_t>(first_key(i));
      at.last_key[c] = static_cast<std::int32_t>(last_key(i));
    }
    for (Index p = 0; p < (few ? 0 : kAttentionColumns / kPanel); ++p) {
      at.panel_first[p] = at.first_key[(p + 1) * kPanel - 1];
      at.panel_last[p] = at.last_key[p * kPanel];
    }
    return at;
  }
};

}  // namespace graft::inline v0_1::kernels::detail

#define GRAFT_FOREACH_FILE "graft/kernels/impl/attention_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::kernels {
namespace detail {

inline bool visible(const AttentionArgs<double>& a, Index b, Index i, Index j) noexcept {
  const Index at = i + a.kv_len - a.q_len;
  return !(a.causal && j > at) && !(a.window > 0 && j <= at - a.window) &&
         (a.key_mask == nullptr || a.key_mask[b * a.kv_len + j] != 0);
}

/// The score of a query and a key, and its slope with respect to scale · q · k.
inline std::pair<double, double> score_of(const AttentionArgs<double>& a, Index b, Index h, Index i,
                                          Index j) noexcept {
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
    if (!visible(a, b, i, j) || high == -std::numeric_limits<double>::infinity()) continue;
    const double p = std::exp(score_of(a, b, h, i, j).first - high);
    sum += p;
    for (Index c = 0; c < e; ++c) out[c] += p * a.v[(b * a.kv_len + j) * a.ldv + g * e + c];
  }
  if (sum > 0)
    for (Index c = 0; c < e; ++c) out[c] /= sum;
  if (plan.lse != nullptr)
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
    if (plan.dbias != nullptr) plan.dbias[(h * a.q_len + i) * a.kv_len + j] += p * (dp - delta);
    const double ds = p * (dp - delta) * slope * a.scale;
    for (Index c = 0; c < d; ++c) {
      if (plan.dq != nullptr)
        plan.dq[(b * a.q_len + i) * plan.lddq + h * d + c] +=
            ds * a.k[(b * a.kv_len + j) * a.ldk + g * d + c];
      if (plan.dk != nullptr)
        plan.dk[(b * a.kv_len + j) * plan.lddk + g * d + c] +=
            ds * a.q[(b * a.q_len + i) * a.ldq + h * d + c];
    }
    if (plan.dv != nullptr)
      for (Index c = 0; c < e; ++c)
        plan.dv[(b * a.kv_len + j) * plan.lddv + g * e + c] += p * dy[c];
  }
}

template <class T>
AttentionPlan<T> attention_plan(const AttentionArgs<T>& args) noexcept {
  AttentionPlan<T> plan;
  plan.args = args;
  plan.v_dim = args.v_head_dim > 0 ? args.v_head_dim : args.head_dim;
  plan.group = args.heads / args.kv_heads;
  plan.columns = plan.group * args.q_len;
  plan.blocks = ceil_div(plan.columns, kAttentionColumns);
  // The capped score is cap · tanh(q · k · scale / cap); all scores are in units of log2 e.
  plan.query_factor = args.softcap > 0 ? args.scale / args.softcap
                                       : args.scale * static_cast<T>(1.44269504088896340736);
  return plan;
}

/// body(task) for all tasks, on one thread where waking others would cost more.
template <class Body>
void run_attention_tasks(Index tasks, double operations, const Body& body, double least = 2e6) {
  if (operations < least) {
    for (Index task = 0; task < tasks; ++task) body(task);
  } else {
    ThreadPool::global().parallel_for(tasks, body);
  }
}

template <class T>
double attention_operations(const AttentionPlan<T>& plan) noexcept {
  const AttentionArgs<T>& a = plan.args;
  return 2.0 * static_cast<double>(a.batch * a.heads) * static_cast<double>(a.q_len) *
         static_cast<double>(a.kv_len) * static_cast<double>(a.head_dim + plan.v_dim);
}

/// Whether blocks are multiplied as pairs of bf16 values.
inline bool takes_pairs([[maybe_unused]] const AttentionPlan<float>& plan) noexcept {
#if GRAFT_X86
  return plan.args.compute == Compute::bf16 && plan.columns > kAttentionFewColumns &&
         has_fast_bf16_dot();
#else
  return false;
#endif
}

/// Scratch of PairProducts in a block, at most.
inline Index pair_scratch(Index d, Index e) noexcept {
  const Index width = round_up(d, kPanel) + round_up(e, kPanel) + 2 * kPanel;
  return 2 * (kAttentionColumns + kPanel / 2) * width + 3 * kAttentionKeys * kAttentionColumns;
}

struct AttentionPartialSums;  // purpose of a scratch buffer

inline void forward_all(const AttentionPlan<float>& plan) {
  const AttentionArgs<float>& a = plan.args;
  const Index d = a.head_dim, e = plan.v_dim, pairs = a.batch * a.kv_heads;
  if (plan.columns <= kAttentionFewColumns) {
    const auto run = GRAFT_DISPATCH(attention_forward_few);
    const Index e_width = round_up(e, kPanel);
    const Index scratch =
        kAttentionFewColumns * (d + e_width + kAttentionFewKeys) + kAttentionFewKeys * e_width;
    // A task has all heads of some parts of the keys of a row, which lie one behind the other in
    // memory. How the keys are cut does not depend on the threads, only who does which parts.
    const Index most = std::max<Index>(1, 32 / a.batch);
    const Index parts = std::max<Index>(
        1, ceil_div(a.kv_len, std::max(kAttentionFewPart, ceil_div(a.kv_len, most))));
    const Index part_size = plan.columns * (e_width + 2);
    float* const sums = thread_scratch<float, AttentionPartialSums>(pairs * parts * part_size);
    const auto part_of = [&](Index pair, Index part) {
      auto at = plan.columns_of(pair, 0, true);
      const Index first = at.key_begin, keys = at.key_end - at.key_begin;
      at.key_begin = first + keys * part / parts;
      at.key_end = first + keys * (part + 1) / parts;
      return at;
    };
    const Index groups = std::min<Index>(parts, ThreadPool::global().threads());
    const auto body = [&](Index task) {
      const Index row = task / groups * a.kv_heads, group = task % groups;
      for (Index part = parts * group / groups; part < parts * (group + 1) / groups; ++part)
        for (Index pair = row; pair < row + a.kv_heads; ++pair)
          run(plan, part_of(pair, part), thread_scratch(scratch),
              sums + (pair * parts + part) * part_size);
    };
    run_attention_tasks(a.batch * groups, attention_operations(plan), body, 3e5);
    const auto join = GRAFT_DISPATCH(join_few);
    for (Index pair = 0; pair < pairs; ++pair)
      join(plan, plan.columns_of(pair, 0, true), sums + pair * parts * part_size, parts, part_size);
    return;
  }
  auto run = GRAFT_DISPATCH(attention_forward_block<>);
  const bool pairs_of_values = takes_pairs(plan);
#if GRAFT_X86
  if (pairs_of_values) run = &avx512::attention_forward_block<avx512_bf16::PairProducts>;
#endif
  const Index own = round_up(kAttentionColumns * (d + e) + 2 * kAttentionKeys * kPanel +
                                 kAttentionKeys * (round_up(d, kPanel) + kPanel),
                             16);
  const Index scratch = own + (pairs_of_values ? pair_scratch(d, e) : 0);
  // The last columns see the most keys under a causal mask: they go first.
  run_attention_tasks(pairs * plan.blocks, attention_operations(plan), [&](Index task) {
    const Index block = plan.blocks - 1 - task % plan.blocks;
    float* const memory = thread_scratch(scratch);
    run(plan, plan.columns_of(task / plan.blocks, block), memory, memory + own);
  });
}

// A task has a key/value head and a part of its columns. The first part adds to dk and dv itself,
// the others to sums of their own, which are added in order at the end.
inline void backward_all(const AttentionPlan<float>& plan) {
  const AttentionArgs<float>& a = plan.args;
  if (plan.dbias != nullptr && a.batch > 1) {  // rows of the batch share it
    for (Index b = 0; b < a.batch; ++b) backward_all(plan.of_row(b));
    return;
  }
  const Index d = a.head_dim, e = plan.v_dim, pairs = a.batch * a.kv_heads;
  const Index parts = std::clamp<Index>(ceil_div(kAttentionTasks, pairs), 1, plan.blocks);
  const Index d_width = plan.dk == nullptr ? 0 : round_up(d, kPanel);
  const Index e_width = plan.dv == nullptr ? 0 : round_up(e, kPanel);
  const Index part_size = a.kv_len * (d_width + e_width);
  float* const sums = thread_scratch<float, AttentionPartialSums>(pairs * (parts - 1) * part_size);
  auto run = GRAFT_DISPATCH(attention_backward_block<>);
  const bool pairs_of_values = takes_pairs(plan);
#if GRAFT_X86
  if (pairs_of_values) run = &avx512::attention_backward_block<avx512_bf16::PairProducts>;
#endif
  const Index own_scratch =
      round_up(kAttentionColumns * (2 * d + e + round_up(d, kPanel) + round_up(e, kPanel)) +
                   3 * kAttentionKeys * kAttentionColumns + kAttentionKeys * kPanel +
                   kAttentionKeys * (round_up(d, kPanel) + round_up(e, kPanel) + 2 * kPanel),
               16);
  const Index scratch = own_scratch + (pairs_of_values ? pair_scratch(d, e) : 0);
  run_attention_tasks(pairs * parts, attention_operations(plan), [&](Index task) {
    const Index pair = task / parts, part = parts - 1 - task % parts;
    const Index first = plan.blocks * part / parts, last = plan.blocks * (part + 1) / parts;
    const Index head = pair % a.kv_heads, row = pair / a.kv_heads * a.kv_len;
    float* dk = plan.dk == nullptr ? nullptr : plan.dk + row * plan.lddk + head * d;
    float* dv = plan.dv == nullptr ? nullptr : plan.dv + row * plan.lddv + head * e;
    Index lddk = plan.lddk, lddv = plan.lddv;
    if (part > 0) {
      float* const own = sums + (pair * (parts - 1) + part - 1) * part_size;
      const Index begin = plan.columns_of(pair, first).key_begin;
      const Index end = plan.columns_of(pair, last - 1).key_end;
      const Index count = std::max<Index>(0, end - begin);
      if (dk != nullptr) dk = own;
      if (dv != nullptr) dv = own + a.kv_len * d_width;
      lddk = d_width;
      lddv = e_width;
      if (dk != nullptr) std::fill_n(dk + begin * lddk, count * lddk, 0.0f);
      if (dv != nullptr) std::fill_n(dv + begin * lddv, count * lddv, 0.0f);
    }
    float* const memory = thread_scratch(scratch);
    for (Index block = first; block < last; ++block)
      run(plan, plan.columns_of(pair, block), dk, lddk, dv, lddv, memory, memory + own_scratch);
  });
  if (parts == 1 || part_size == 0) return;
  const Index key_blocks = ceil_div(a.kv_len, kAttentionKeys);
  run_attention_tasks(pairs * key_blocks, attention_operations(plan), [&](Index task) {
    const Index pair = task / key_blocks, row = pair / a.kv_heads * a.kv_len;
    const Index head = pair % a.kv_heads, k0 = task % key_blocks * kAttentionKeys;
    for (Index part = 1; part < parts; ++part) {
      const float* const own = sums + (pair * (parts - 1) + part - 1) * part_size;
      const Index begin = std::max(k0, plan.columns_of(pair, plan.blocks * part / parts).key_begin);
      const Index end = std::min(
          k0 + kAttentionKeys, plan.columns_of(pair, plan.blocks * (part + 1) / parts - 1).key_end);
      for (Index j = begin; j < end; ++j) {
        if (plan.dk != nullptr) {
          float* to = plan.dk + (row + j) * plan.lddk + head * d;
          binary_block<Binary::add>(own + j * d_width, to, 1.0f, to, d);
        }
        if (plan.dv != nullptr) {
          float* to = plan.dv + (row + j) * plan.lddv + head * e;
          binary_block<Binary::add>(own + a.kv_len * d_width + j * e_width, to, 1.0f, to, e);
        }
      }
    }
  });
}

inline void forward_all(const AttentionPlan<double>& plan) {
  const AttentionArgs<double>& a = plan.args;
  run_attention_tasks(a.batch * a.heads, attention_operations(plan), [&](Index task) {
    for (Index i = 0; i < a.q_len; ++i) forward_row(plan, task / a.heads, task % a.heads, i);
  });
}

inline void backward_all(const AttentionPlan<double>& plan) {
  const AttentionArgs<double>& a = plan.args;
  if (plan.dbias != nullptr && a.batch > 1) {
    for (Index b = 0; b < a.batch; ++b) backward_all(plan.of_row(b));
    return;
  }
  run_attention_tasks(a.batch * a.kv_heads, attention_operations(plan), [&](Index task) {
    for (Index m = 0; m < plan.group; ++m)
      for (Index i = 0; i < a.q_len; ++i)
        backward_row(plan, task / a.kv_heads, task % a.kv_heads * plan.group + m, i);
  });
}

}  // namespace detail

template <class T>
void attention_forward(const AttentionArgs<T>& args, std::type_identity_t<T>* out, Index ldo,
                       std::type_identity_t<T>* lse) {
  if (args.q_len <= 0 || args.batch <= 0) return;
  auto plan = detail::attention_plan(args);
  const ProfileScope profile("attention", detail::attention_operations(plan), 0);
  plan.out = out;
  plan.ldo = ldo;
  plan.lse = lse;
  detail::forward_all(plan);
}

template <class T>
void attention_backward(const AttentionArgs<T>& args, const std::type_identity_t<T>* out, Index ldo,
                        const std::type_identity_t<T>* lse, const std::type_identity_t<T>* dout,
                        Index lddo, std::type_identity_t<T>* dq, Index lddq,
                        std::type_identity_t<T>* dk, Index lddk, std::type_identity_t<T>* dv,
                        Index lddv, std::type_identity_t<T>* dbias) {
  if (args.q_len <= 0 || args.batch <= 0) return;
  auto plan = detail::attention_plan(args);
  const ProfileScope profile("attention gradient", 2.5 * detail::attention_operations(plan), 0);
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
  plan.dbias = dbias;
  detail::backward_all(plan);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_ATTENTION(T)                                                                \
  template void attention_forward<T>(const AttentionArgs<T>&, T*, Index, T*);             \
  template void attention_backward<T>(const AttentionArgs<T>&, const T*, Index, const T*, \
                                      const T*, Index, T*, Index, T*, Index, T*, Index, T*);
GRAFT_ATTENTION(float)
GRAFT_ATTENTION(double)
#undef GRAFT_ATTENTION
#endif

}  // namespace graft::inline v0_1::kernels
