#pragma once

#include "graft/base/profile.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/kernels/impl/gemm_problem.hpp"
#include "graft/kernels/int8_row.hpp"

#define GRAFT_FOREACH_FILE "graft/kernels/impl/gemm_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"
#define GRAFT_FOREACH_FILE "graft/kernels/impl/dot_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::kernels {
namespace detail {

/// Cuts C into tasks of row_block × col_block elements, of at most `most` panels; with tiles, rows
/// are cut at multiples of 32. Only inner_rows matters to the bits of a result, and it does not
/// depend on the number of threads.
inline void plan_blocks(Product& q, bool ready, Index most, bool tiles = false) noexcept {
  const Index blocks = ceil_div(q.m, tiles ? 64 : 70), panels = ceil_div(q.n, kPanel);
  q.inner_rows = std::max<Index>(1, ceil_div(q.m, blocks));
  if (tiles) {
    q.inner_rows = round_up(q.inner_rows, 32);
  } else if (blocks > 1) {
    q.inner_rows = round_up(q.inner_rows, 14);  // whole register tiles of the widest vectors
    const Index rest = q.m % q.inner_rows;
    if (rest > 0 && rest < 14) q.inner_rows += 14;  // no task of a few rows
  }
  // With tiles even packed panels serve many rows: a row of them is done with before the next one
  // has come from memory.
  Index inner_blocks = tiles ? std::max<Index>(1, 256 / q.inner_rows) : 1;
  Index tasks = 16;
  // Panels from one place that a decoder along the columns may start at to the next.
  const bool decoded_rows = q.b.decode != nullptr && q.b.form == RightOperand::Form::k_rows;
  const Index step = decoded_rows ? std::max<Index>(1, q.b.decode_step / kPanel) : 1;
  const bool far = ready && !tiles && q.n * q.k > (1 << 20);
  if (far || (!ready && !q.in_place)) {
    // Panels that a task fills, or that come from memory, serve as many rows as possible: rows are
    // cut only where the columns alone are too few tasks.
    tasks = 3 * ThreadPool::global().threads();
    const Index groups = ceil_div(panels, far ? 4 : std::max<Index>(2, step));
    inner_blocks = std::max(std::min<Index>(2, blocks), ceil_div(blocks, ceil_div(tasks, groups)));
  }
  q.row_block = q.inner_rows * std::min(inner_blocks, blocks);
  const Index group = std::clamp<Index>(panels * q.row_blocks() / tasks, 1, most);
  q.col_block = round_up(group, step) * kPanel;
}

/// Cuts a product for run_product_task.
inline void plan_product(Product& q) noexcept {
  const bool ready = q.b.form == RightOperand::Form::panels && !q.round;
  const bool rows = q.b.form == RightOperand::Form::k_rows && q.b.decode == nullptr;
  // A copy of B pays once it serves more than two tiles. Rows 4 KiB apart fall into the same set of
  // a cache, so there a copy pays earlier, and without one few rows are taken at a time.
  const bool aliased = q.b.stride % 1024 == 0 && q.a_row != 1;
  q.in_place = rows && !q.round && q.m <= (aliased ? 12 : 32);
  q.depth = !q.in_place ? block_depth(q.k, kMaxDepth)
            : aliased   ? std::min<Index>(q.k, 16)
                        : block_depth(q.k, kDecodeStep);
  q.depth = std::max<Index>(q.depth, 1);
  plan_blocks(q, ready, ready ? 8 : q.in_place && aliased ? 32 : 4);

  const Index filled = ready ? 0 : q.in_place ? 1 : q.col_block / kPanel;
  Index offset = 0;
  auto take = [&offset](Index count) {
    const Index start = offset;
    offset += round_up(count, 16);
    return start;
  };
  q.panel_offset = take(filled * q.depth * kPanel);
  const bool decoded = q.b.decode != nullptr || q.b.form == RightOperand::Form::transposed_words;
  q.decode_offset = take(decoded ? kDecodeScratch : 0);
  q.p_offset = take(q.rank * kPanel);
  q.c_offset = take(q.transpose_c ? q.row_block * q.col_block : 0);
  q.scratch = offset;
}

inline void run_product(Product& q) {
  plan_product(q);
  run_tasks(q, GRAFT_DISPATCH(run_product_task), q.operations());
}

/// Stored rows in a task where `bytes` of them are read in all. Memory is read best in long runs:
/// one a thread, which beat two by a quarter here, or a MiB.
inline Index stored_columns(Index bytes, Index row_bytes) {
  const Index run =
      std::clamp<Index>(ceil_div(bytes, ThreadPool::global().threads()), 1 << 14, 1 << 20);
  return std::clamp<Index>(round_up(ceil_div(run, std::max<Index>(row_bytes, 1)), 4), 4, 1 << 14);
}

/// Dot products: for b.form n_rows and a_k 1, with few rows or few columns.
inline void run_dots(Product& q) {
  if (q.b.dot != nullptr && q.m <= kMaxStoredDotRows) {
    q.row_block = q.m;
    q.col_block = stored_columns(q.n * q.b.row_bytes, q.b.row_bytes);
    q.scratch = q.m * q.col_block;
    return run_tasks(q, GRAFT_DISPATCH(run_stored_dot_task), q.operations());
  }
  const bool quantised = q.b.decode != nullptr;
  q.depth = std::max<Index>(1, block_depth(q.k, quantised ? 1024 : 2048));
  if (q.m <= 32) {
    q.row_block = q.m;
    q.col_block = q.m <= 4 ? 32 : 16;
  } else {
    q.row_block = ceil_div(q.m, ceil_div(q.m, 48));
    q.col_block = std::min<Index>(q.n, 64);
  }
  q.decode_offset = 0;
  q.scratch = quantised ? q.col_block * (q.depth + 16) : 0;
  run_tasks(q, GRAFT_DISPATCH(run_dot_task), q.operations());
}

/// Products of the same few rows A with weights that have dot_int8: one loop over the tasks of all.
inline void run_int8_dots(Product* list, Index count) {
  const Index m = list->m, k = list->k, row_pairs = 2 * k / kInt8Block;
  float* const pairs = shared_scratch(m * row_pairs + ceil_div(m * k, 4));
  auto* const codes = reinterpret_cast<std::int8_t*>(pairs + m * row_pairs);
  for (Index i = 0; i < m; ++i)
    quantise_int8_row(list->a + i * list->a_row, k, codes + i * k, pairs + i * row_pairs);
  Index bytes = 0, tasks = 0, columns = 0;
  for (const Product* q = list; q < list + count; ++q) bytes += q->n * q->b.row_bytes;
  double operations = 0;
  for (Product* q = list; q < list + count; ++q) {
    q->codes = codes;
    q->pairs = pairs;
    q->row_block = m;
    q->col_block = stored_columns(bytes, q->b.row_bytes);
    tasks += q->tasks();
    columns = std::max(columns, q->col_block);
    operations += q->operations();
  }
  const auto run = GRAFT_DISPATCH(run_stored_dot_task);
  auto body = [&](Index task) {
    const Product* q = list;
    while (task >= q->tasks()) task -= q++->tasks();
    run(*q, task, thread_scratch(m * columns));
  };
  if (operations < 5e5) {
    for (Index task = 0; task < tasks; ++task) body(task);
  } else {
    ThreadPool::global().parallel_for(tasks, body);
  }
}

template <class T>
void scale_matrix(Index m, Index n, T beta, T* c, Index ldc) noexcept {
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) c[i * ldc + j] = beta == T(0) ? T(0) : beta * c[i * ldc + j];
}

}  // namespace detail

GRAFT_KERNEL void gemm(bool trans_a, bool trans_b, Index m, Index n, Index k, float alpha,
                       const float* a, Index lda, const float* b, Index ldb, float beta, float* c,
                       Index ldc) {
  if (m <= 0 || n <= 0) return;
  const double md = static_cast<double>(m), nd = static_cast<double>(n),
               kd = static_cast<double>(k);
  const ProfileScope profile("product", 2 * md * nd * kd,
                             4 * (md * kd + kd * nd + (beta == 0.0f ? 1 : 2) * md * nd));
  if (k <= 0 || alpha == 0.0f) return detail::scale_matrix(m, n, beta, c, ldc);
  using Form = detail::RightOperand::Form;
  detail::Product q;
  q.alpha = alpha;
  q.beta = beta;
  q.c = c;
  q.ldc = ldc;
  q.k = k;
  if (trans_a && n <= 64 && m > n) {
    // Few columns: C transposed = op(B) transposed · A, so that vectors run along the rows of A.
    q.m = n;
    q.n = m;
    q.a = b;
    q.a_row = trans_b ? ldb : 1;
    q.a_k = trans_b ? 1 : ldb;
    q.b.form = Form::k_rows;
    q.b.data = a;
    q.b.stride = lda;
    q.transpose_c = true;
    return detail::run_product(q);
  }
  q.m = m;
  q.n = n;
  q.a = a;
  q.a_row = trans_a ? 1 : lda;
  q.a_k = trans_a ? lda : 1;
  q.b.form = trans_b ? Form::n_rows : Form::k_rows;
  q.b.data = b;
  q.b.stride = ldb;
  if (trans_a && m > 32 && lda % 1024 == 0) {
    // Steps along k that are multiples of 4 KiB fall into the same set of a cache.
    const Index stride = detail::round_up(k, 16) + 16;
    float* const rows = detail::shared_scratch(m * stride);
    const auto transpose = GRAFT_DISPATCH(store_transposed);
    detail::for_row_blocks(m, m * k, [&](Index first, Index count) {
      transpose(a + first, lda, k, count, 1.0f, 0.0f, rows + first * stride, stride);
    });
    q.a = rows;
    q.a_row = stride;
    q.a_k = 1;
  }
  if (trans_b && !trans_a && (m <= 24 || n <= 24)) return detail::run_dots(q);
  if (!trans_b && !trans_a && n <= 24 && m >= 32) {
    // Few columns: B transposed once, then dot products as well.
    const Index stride = detail::round_up(k, 16) + 16;
    float* const transposed = detail::shared_scratch(n * stride);
    GRAFT_DISPATCH(store_transposed)(b, ldb, k, n, 1.0f, 0.0f, transposed, stride);
    q.b.form = Form::n_rows;
    q.b.data = transposed;
    q.b.stride = stride;
    detail::run_dots(q);
    return;
  }
  detail::run_product(q);
}

GRAFT_KERNEL void gemm(bool trans_a, bool trans_b, Index m, Index n, Index k, double alpha,
                       const double* a, Index lda, const double* b, Index ldb, double beta,
                       double* c, Index ldc) {
  if (m <= 0 || n <= 0) return;
  if (k <= 0 || alpha == 0.0) return detail::scale_matrix(m, n, beta, c, ldc);
  constexpr Index kRows = 8;
  auto body = [&](Index task) {
    for (Index i = task * kRows; i < std::min(m, (task + 1) * kRows); ++i) {
      double* row = c + i * ldc;
      detail::scale_matrix<double>(1, n, beta, row, ldc);
      const double* x = trans_a ? a + i : a + i * lda;
      const Index step = trans_a ? lda : 1;
      if (trans_b) {
        for (Index j = 0; j < n; ++j) {
          double sum = 0;
          for (Index l = 0; l < k; ++l) sum += x[l * step] * b[j * ldb + l];
          row[j] += alpha * sum;
        }
      } else {
        for (Index l = 0; l < k; ++l) {
          const double v = alpha * x[l * step];
          for (Index j = 0; j < n; ++j) row[j] += v * b[l * ldb + j];
        }
      }
    }
  };
  const Index tasks = detail::ceil_div(m, kRows);
  if (static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) < 1e5) {
    for (Index task = 0; task < tasks; ++task) body(task);
  } else {
    ThreadPool::global().parallel_for(tasks, body);
  }
}

GRAFT_KERNEL void low_rank_gradients(Index m, Index n, Index rank, float alpha, const float* dy,
                                     Index ldy, const float* b, const float* h, float* dh,
                                     float beta, float* db) {
  const double work = 4.0 * static_cast<double>(m) * static_cast<double>(n * rank);
  if (m < 32 || rank <= 0 || rank > 64 || work < 1e6) {
    gemm(true, false, n, rank, m, 1.0f, dy, ldy, h, rank, beta, db, rank);
    return gemm(false, false, m, rank, n, alpha, dy, ldy, b, rank, 0.0f, dh, rank);
  }
  const ProfileScope profile("product", work, 4.0 * static_cast<double>(m * n));
  const auto transpose = GRAFT_DISPATCH(store_transposed);
  const auto run_dot = GRAFT_DISPATCH(run_dot_task);
  const auto run = GRAFT_DISPATCH(run_product_task);
  // A task takes a group of rows, in parts that stay in its cache for both products; dyᵀ h comes
  // out as a sum for each group.
  const Index groups = std::clamp<Index>(detail::ceil_div(m, 64), m < 64 ? 1 : 2, 8);
  const Index group_rows = detail::ceil_div(m, groups);
  const Index part_rows = std::clamp<Index>((Index{1} << 16) / n, 8, group_rows);
  const Index stride = detail::round_up(n, 16) + 16;
  float* const transposed = detail::shared_scratch((groups + 1) * rank * stride);
  float* const sums = transposed + rank * stride;
  detail::for_row_blocks(n, n * rank, [&](Index first, Index count) {
    transpose(b + first * rank, rank, count, rank, 1.0f, 0.0f, transposed + first, stride);
  });
  ThreadPool::global().parallel_for(detail::ceil_div(m, group_rows), [&](Index group) {
    const Index end = std::min(m, (group + 1) * group_rows);
    for (Index row = group * group_rows; row < end; row += part_rows) {
      detail::Product p;
      p.k = std::min(part_rows, end - row);
      p.m = rank;
      p.n = n;
      p.a = h + row * rank;
      p.a_row = 1;
      p.a_k = rank;
      p.b.form = detail::RightOperand::Form::k_rows;
      p.b.data = dy + row * ldy;
      p.b.stride = ldy;
      p.c = sums + group * rank * stride;
      p.ldc = stride;
      p.beta = row == group * group_rows ? 0.0f : 1.0f;
      detail::plan_product(p);
      detail::Product d;
      d.m = d.row_block = p.k;
      d.n = rank;
      d.k = n;
      d.a = dy + row * ldy;
      d.a_row = ldy;
      d.b.form = detail::RightOperand::Form::n_rows;
      d.b.data = transposed;
      d.b.stride = stride;
      d.c = dh + row * rank;
      d.ldc = rank;
      d.alpha = alpha;
      d.col_block = 16;
      d.depth = detail::block_depth(n, 2048);
      float* const scratch = detail::thread_scratch(p.scratch);
      for (Index task = 0; task < d.tasks(); ++task) run_dot(d, task, scratch);
      for (Index task = 0; task < p.tasks(); ++task) run(p, task, scratch);
    }
  });
  detail::for_row_blocks(n, n * rank * groups, [&](Index first, Index count) {
    for (Index group = 0; group * group_rows < m; ++group)
      transpose(sums + group * rank * stride + first, stride, rank, count, 1.0f,
                group == 0 ? beta : 1.0f, db + first * rank, rank);
  });
}

GRAFT_KERNEL void low_rank_gradients(Index m, Index n, Index rank, double alpha, const double* dy,
                                     Index ldy, const double* b, const double* h, double* dh,
                                     double beta, double* db) {
  gemm(true, false, n, rank, m, 1.0, dy, ldy, h, rank, beta, db, rank);
  gemm(false, false, m, rank, n, alpha, dy, ldy, b, rank, 0.0, dh, rank);
}

}  // namespace graft::inline v0_1::kernels
