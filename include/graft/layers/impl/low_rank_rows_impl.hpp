#pragma once

#include <algorithm>
#include <utility>

#include "graft/layers/low_rank_rows.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL std::vector<LowRankRun> low_rank_runs(std::span<const std::int64_t> terms) {
  std::vector<LowRankRun> runs;
  for (std::size_t row = 0; row < terms.size(); ++row) {
    const auto term = static_cast<Index>(std::max<std::int64_t>(-1, terms[row]));
    if (runs.empty() || runs.back().term != term)
      runs.push_back({term, static_cast<Index>(row), 0});
    ++runs.back().count;
  }
  return runs;
}

template <std::floating_point T>
BasicVar<T> linear_low_rank_rows(const BasicAnyLinear<T>& base, const BasicVar<T>& x,
                                 const std::vector<LowRankTerm<T>>& terms,
                                 const std::vector<LowRankRun>& runs) {
  detail::check_input(base, x.shape());
  const Index rows = x.rows(), in = base.in_features(), out = base.out_features();
  auto& tape = x.tape();
  struct Term {
    BasicTensor<T> a, b;
    BasicGradRef<T> ga, gb;
    Index rank, column;  ///< of its ranks in H
    T scaling;
  };
  std::vector<Term> list;
  Index ranks = 0;
  bool wants = x.requires_grad();
  for (const auto& term : terms) {
    const auto a = tape.parameter(term.a), b = tape.parameter(term.b);
    const Index rank = a.rows();
    if (a.shape() != Shape{rank, in} || b.shape() != Shape{out, rank})
      throw ShapeError(concat("linear_low_rank_rows: factors ", a.shape().text(), " and ",
                              b.shape().text(), " for ", in, " inputs and ", out, " outputs"));
    list.push_back({a.value(), b.value(), a.grad_ref(), b.grad_ref(), rank, ranks, term.scaling});
    wants = wants || a.requires_grad() || b.requires_grad();
    ranks += rank;
  }
  for (const auto& run : runs)
    if (run.first < 0 || run.count < 0 || run.first + run.count > rows ||
        run.term >= static_cast<Index>(list.size()))
      throw ShapeError(concat("linear_low_rank_rows: rows [", run.first, ", ",
                              run.first + run.count, ") of ", rows, " with term ", run.term, " of ",
                              list.size()));
  auto h = BasicTensor<T>::zeros({rows, ranks});
  auto bt = BasicTensor<T>::empty({ranks, out});
  for (const auto& t : list)
    for (Index r = 0; r < t.rank; ++r)
      for (Index o = 0; o < out; ++o) bt(t.column + r, o) = t.b(o, r);
  for (const auto& run : runs) {
    if (run.term < 0) continue;
    const auto& t = list[static_cast<std::size_t>(run.term)];
    kernels::gemm(false, true, run.count, t.rank, in, t.scaling, x.value().data() + run.first * in,
                  in, t.a.data(), in, T{0}, h.data() + run.first * ranks + t.column, ranks);
  }
  auto y = BasicTensor<T>::empty(x.shape().with_last(out));
  const LowRankProduct<T> product{h.matrix(), bt.matrix()};
  base.forward(x.value().matrix(), y.matrix(), ranks > 0 ? &product : nullptr);
  return tape.record(std::move(y), wants,
                     [&base, rows, in, out, ranks, runs, h, list = std::move(list),
                      gx = x.grad_ref(), xs = x.saved()](const BasicTensor<T>& dy) {
                       auto dh = BasicTensor<T>::zeros({rows, ranks});  // s · dy B
                       for (const auto& run : runs) {
                         if (run.term < 0) continue;
                         const auto& t = list[static_cast<std::size_t>(run.term)];
                         const T* g = dy.data() + run.first * out;
                         T* to = dh.data() + run.first * ranks + t.column;
                         kernels::gemm(false, false, run.count, t.rank, out, t.scaling, g, out,
                                       t.b.data(), t.rank, T{0}, to, ranks);
                         if (t.gb)
                           kernels::gemm(true, false, out, t.rank, run.count, T{1}, g, out,
                                         h.data() + run.first * ranks + t.column, ranks, T{1},
                                         t.gb.accumulator(), t.rank);
                         if (t.ga)
                           kernels::gemm(true, false, t.rank, in, run.count, T{1}, to, ranks,
                                         xs.get().data() + run.first * in, in, T{1},
                                         t.ga.accumulator(), in);
                       }
                       if (!gx) return;
                       auto at = BasicTensor<T>::empty({ranks, in});
                       for (const auto& t : list)
                         std::copy_n(t.a.data(), t.rank * in, at.data() + t.column * in);
                       const LowRankProduct<T> back{dh.matrix(), at.matrix()};
                       auto [dx, accumulate] = gx.buffer();
                       base.backward_input(dy.matrix(), MatrixView<T>(dx, rows, in),
                                           ranks > 0 ? &back : nullptr, accumulate);
                     });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                              \
  template BasicVar<T> linear_low_rank_rows(const BasicAnyLinear<T>&, const BasicVar<T>&, \
                                            const std::vector<LowRankTerm<T>>&,           \
                                            const std::vector<LowRankRun>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
