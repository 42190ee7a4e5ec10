// Speed of the matrix products: packed, dense and stored frozen weights, the low-rank term, and the
// skinny products of adapter training. GRAFT_NUM_THREADS and GRAFT_ISA choose how they run. `peak`
// is the part of the peak (multiply-adds, or bf16 dot products of vectors or tiles) measured just
// before; items are floating-point operations. low_rank: with an adapter of rank 16, its product
// with x included. compute: 0 f32, 1 bf16, 2 f32 split in bf16 by tiles, of the peak of f32.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "bf16_peak.hpp"
#include "graft/base/thread_pool.hpp"
#include "graft/kernels/frozen.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/kernels/simd.hpp"
#include "graft/quant/format.hpp"
#include "graft/quant/panel.hpp"

#define GRAFT_FOREACH_FILE "fma_peak.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace {

using graft::Index;
namespace kernels = graft::kernels;
namespace quant = graft::quant;

std::vector<float> random_values(Index n) {
  static std::mt19937 generator(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = uniform(generator);
  return values;
}

/// Operations a second of all threads together; of bf16 dot products where these are the fast way.
double measure_peak(kernels::Compute compute = kernels::Compute::f32) {
  constexpr Index kRounds = 5000;
  auto& pool = graft::ThreadPool::global();
  auto probe = GRAFT_DISPATCH(fma_peak);
  Index operations = 48 * kRounds * GRAFT_DISPATCH(lanes)() * pool.threads();
#if GRAFT_X86
  if (compute == kernels::Compute::bf16 && kernels::active_isa() == kernels::Isa::amx) {
    probe = &graft::bench::tile_peak;
    operations = graft::bench::kTileRound * kRounds * pool.threads();
  } else if (compute == kernels::Compute::bf16 && kernels::bf16_is_fast()) {
    probe = &graft::bench::bf16_peak;
    operations = 24 * 64 * kRounds * pool.threads();
  }
#endif
  double best = 1e9;
  for (int repeat = 0; repeat < 20; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(pool.threads(), [&](Index) { benchmark::DoNotOptimize(probe(kRounds)); });
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::min(best, time.count());
  }
  return static_cast<double>(operations) / best;
}

void set_operations(benchmark::State& state, Index m, Index n, Index k, double peak) {
  const auto total = 2 * static_cast<std::int64_t>(m * n * k) * state.iterations();
  state.SetItemsProcessed(total);
  state.counters["peak"] =
      benchmark::Counter(static_cast<double>(total) / peak, benchmark::Counter::kIsRate);
}

enum Form { packed, dense, q4_0, q4_1, q8_0, q4_k };

struct Layer {
  Index in, out, rows;
  kernels::Compute compute;
  std::vector<float> values, x, y, h, a, p;
  std::vector<std::byte> blocks;
  kernels::PackedWeights panels;
  kernels::FrozenWeight weight;

  explicit Layer(const benchmark::State& state)
      : in(state.range(1)),
        out(state.range(2)),
        rows(state.range(3)),
        compute(static_cast<kernels::Compute>(state.range(5))),
        values(random_values(out * in)) {
    weight = {.out = out, .in = in, .dense = values.data(), .row_stride = in};
    const auto form = static_cast<Form>(state.range(0));
    if (form == packed) {
      panels = kernels::PackedWeights(weight, true, compute);
      weight = {.out = out, .in = in, .packed = &panels};
    } else if (form != dense) {
      const quant::Format format = form == q4_0   ? quant::Format::q4_0
                                   : form == q4_1 ? quant::Format::q4_1
                                   : form == q8_0 ? quant::Format::q8_0
                                                  : quant::Format::q4_k;
      const Index row_bytes = quant::row_bytes(format, in);
      blocks.resize(static_cast<std::size_t>(out * row_bytes));
      if (form != q4_k) quant::encode(format, values.data(), out * in, blocks.data());
      weight = {.out = out,
                .in = in,
                .blocks = blocks.data(),
                .row_bytes = row_bytes,
                .decode_step = std::max<Index>(32, quant::format_info(format).block_elements),
                .decode = quant::row_decoder(format),
                .decode_panel = quant::panel_decoder(format),
                .decode_columns = quant::column_decoder(format)};
    }
    x = random_values(rows * in);
    y = random_values(rows * out);
    h = random_values(rows * 16);
    a = random_values(16 * std::max(in, out));
    p = random_values(16 * std::max(in, out));
  }
};

/// True, and the row says so, if the processor lacks what it measures.
bool skipped(benchmark::State& state, bool tiles) {
  if (!tiles || kernels::active_isa() == kernels::Isa::amx) return false;
  state.SkipWithError("not on this CPU: no AMX tiles, or GRAFT_ISA leaves them out");
  return true;
}

#if GRAFT_X86
void amx_peak(benchmark::State& state) {
  if (skipped(state, true)) return;
  constexpr Index kRounds = 5000;
  for (auto _ : state) benchmark::DoNotOptimize(graft::bench::tile_peak(kRounds));
  state.SetItemsProcessed(state.iterations() * graft::bench::kTileRound * kRounds);
}
BENCHMARK(amx_peak)->UseRealTime();
#endif

void forward(benchmark::State& state) {
  if (skipped(state, state.range(5) == 2)) return;
  Layer layer(state);
  const double peak = measure_peak(layer.compute);
  const kernels::LowRankTerm term{layer.h.data(), 16, layer.p.data(), layer.out, 16};
  const bool low_rank = state.range(4) != 0;
  for (auto _ : state) {
    if (low_rank)
      kernels::gemm(false, true, layer.rows, 16, layer.in, 1.0f, layer.x.data(), layer.in,
                    layer.a.data(), layer.in, 0.0f, layer.h.data(), 16);
    kernels::frozen_forward(layer.weight, layer.x.data(), layer.rows, layer.in, nullptr,
                            layer.y.data(), layer.out, false, low_rank ? &term : nullptr,
                            layer.compute);
  }
  set_operations(state, layer.rows, layer.out, layer.in, peak);
}

void backward_input(benchmark::State& state) {
  if (skipped(state, state.range(5) == 2)) return;
  Layer layer(state);
  const double peak = measure_peak(layer.compute);
  const kernels::LowRankTerm term{layer.h.data(), 16, layer.p.data(), layer.in, 16};
  const bool low_rank = state.range(4) != 0;
  for (auto _ : state) {
    if (low_rank)
      kernels::gemm(false, false, layer.rows, 16, layer.out, 1.0f, layer.y.data(), layer.out,
                    layer.a.data(), 16, 0.0f, layer.h.data(), 16);
    kernels::frozen_backward_input(layer.weight, layer.y.data(), layer.rows, layer.out,
                                   layer.x.data(), layer.in, false, low_rank ? &term : nullptr,
                                   layer.compute);
  }
  set_operations(state, layer.rows, layer.out, layer.in, peak);
}

void layers(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"form", "in", "out", "rows", "low_rank", "compute"})->UseRealTime();
  for (auto [in, out] :
       {std::pair<Index, Index>{576, 576}, {576, 1536}, {1024, 1024}, {2048, 2048}}) {
    for (Index rows : {1, 8, 64, 256, 512}) {
      for (Index compute : {0, 1}) {
        for (Form form : {packed, dense, q4_0, q4_1, q8_0})
          bench->Args({form, in, out, rows, 0, compute});
        bench->Args({packed, in, out, rows, 1, compute});
        if (in % 256 == 0) bench->Args({q4_k, in, out, rows, 0, compute});
      }
      if (rows >= 64)
        for (Form form : {packed, dense, q4_1}) bench->Args({form, in, out, rows, 0, 2});
    }
  }
}
BENCHMARK(forward)->Apply(layers);
BENCHMARK(backward_input)->Apply(layers);

/// The products of a low-rank adapter: X is rows × features, A rank × features, H rows × rank.
enum Skinny { h_xat, g_dyb, da_gtx, db_dyth };

void skinny(benchmark::State& state) {
  const auto kind = static_cast<Skinny>(state.range(0));
  const Index features = state.range(1), rows = state.range(2), rank = state.range(3);
  auto x = random_values(rows * features), a = random_values(rank * features),
       h = random_values(rows * rank);
  const double peak = measure_peak();
  for (auto _ : state) {
    switch (kind) {
      case h_xat:
        kernels::gemm(false, true, rows, rank, features, 1.0f, x.data(), features, a.data(),
                      features, 0.0f, h.data(), rank);
        break;
      case g_dyb:
        kernels::gemm(false, false, rows, rank, features, 1.0f, x.data(), features, a.data(), rank,
                      0.0f, h.data(), rank);
        break;
      case da_gtx:
        kernels::gemm(true, false, rank, features, rows, 1.0f, h.data(), rank, x.data(), features,
                      0.0f, a.data(), features);
        break;
      case db_dyth:
        kernels::gemm(true, false, features, rank, rows, 1.0f, x.data(), features, h.data(), rank,
                      0.0f, a.data(), rank);
        break;
    }
  }
  set_operations(state, rows, features, rank, peak);
}
BENCHMARK(skinny)
    ->ArgNames({"kind", "features", "rows", "rank"})
    ->ArgsProduct({{h_xat, g_dyb, da_gtx, db_dyth}, {576, 1024, 1536}, {64, 512}, {8, 16, 64}})
    ->UseRealTime();

void gemm_square(benchmark::State& state) {
  const Index n = state.range(2);
  const auto a = random_values(n * n), b = random_values(n * n);
  std::vector<float> c(a.size());
  const double peak = measure_peak();
  for (auto _ : state)
    kernels::gemm(state.range(0) != 0, state.range(1) != 0, n, n, n, 1.0f, a.data(), n, b.data(), n,
                  0.0f, c.data(), n);
  set_operations(state, n, n, n, peak);
}
BENCHMARK(gemm_square)
    ->ArgNames({"trans_a", "trans_b", "n"})
    ->ArgsProduct({{0, 1}, {0, 1}, {128, 500, 1024}})
    ->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
