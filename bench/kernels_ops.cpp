// Speed of the kernels around the matrix products: attention, norms, activations, rotary embedding,
// cross-entropy and the optimiser. GRAFT_NUM_THREADS and GRAFT_ISA choose how they run.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "graft/kernels/attention.hpp"
#include "graft/kernels/cross_entropy.hpp"
#include "graft/kernels/elementwise.hpp"
#include "graft/kernels/norm.hpp"
#include "graft/kernels/optimizer.hpp"
#include "graft/kernels/rotary.hpp"

namespace {

using graft::Index;
namespace kernels = graft::kernels;
using kernels::Activation;

std::vector<float> random_values(Index n, float spread = 1) {
  static std::mt19937 generator(7);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = normal(generator);
  return values;
}

void set_bytes(benchmark::State& state, Index bytes) {
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * bytes);
}

struct Attention {
  kernels::AttentionArgs<float> args{};
  std::vector<float> q, k, v, out, lse, dout, dq, dk, dv;

  explicit Attention(const benchmark::State& state) {
    const Index batch = state.range(0), heads = state.range(1), kv_heads = state.range(2);
    const Index q_len = state.range(3), kv_len = state.range(4), dim = state.range(5);
    q = random_values(batch * q_len * heads * dim);
    k = random_values(batch * kv_len * kv_heads * dim);
    v = random_values(batch * kv_len * kv_heads * dim);
    dout = random_values(batch * q_len * heads * dim);
    out.resize(q.size());
    dq.resize(q.size());
    dk.resize(k.size());
    dv.resize(v.size());
    lse.resize(static_cast<std::size_t>(batch * heads * q_len));
    args.batch = batch;
    args.heads = heads;
    args.kv_heads = kv_heads;
    args.q_len = q_len;
    args.kv_len = kv_len;
    args.head_dim = dim;
    args.q = q.data();
    args.ldq = heads * dim;
    args.k = k.data();
    args.ldk = kv_heads * dim;
    args.v = v.data();
    args.ldv = kv_heads * dim;
    args.scale = 1 / std::sqrt(static_cast<float>(dim));
    args.causal = state.range(6) != 0;
    forward();
  }
  void forward() { kernels::attention_forward(args, out.data(), args.ldq, lse.data()); }
  void backward() {
    kernels::attention_backward(args, out.data(), args.ldq, lse.data(), dout.data(), args.ldq,
                                dq.data(), args.ldq, dk.data(), args.ldk, dv.data(), args.ldv);
  }
  /// Multiply-adds times two that the mask leaves, for `products` matrix products.
  double flops(double products) const {
    const double q_len = static_cast<double>(args.q_len), kv_len = static_cast<double>(args.kv_len);
    const double pairs = args.causal ? q_len * (kv_len - (q_len - 1) / 2) : q_len * kv_len;
    return 2 * products * pairs * static_cast<double>(args.head_dim * args.heads * args.batch);
  }
};

void count_flops(benchmark::State& state, double flops) {
  state.counters["flop"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

void attention_forward(benchmark::State& state) {
  Attention a(state);
  for (auto _ : state) a.forward();
  count_flops(state, a.flops(2));
}
void attention_backward(benchmark::State& state) {
  Attention a(state);
  for (auto _ : state) a.backward();
  count_flops(state, a.flops(5));
}
void attention_sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"batch", "heads", "kv", "q", "k", "dim", "causal"});
  b->Args({4, 9, 3, 256, 256, 64, 1});
  b->Args({1, 9, 3, 2048, 2048, 64, 1});
  b->Args({4, 12, 12, 128, 128, 64, 0});
  b->Args({1, 8, 8, 512, 512, 128, 1});
  b->Args({1, 9, 3, 1, 512, 64, 1});
}
BENCHMARK(attention_forward)->Apply(attention_sizes)->UseRealTime();
BENCHMARK(attention_backward)->Apply(attention_sizes)->UseRealTime();

constexpr Index kRows = 1024, kHidden = 576, kWide = 1536;

void rms_norm_forward(benchmark::State& state) {
  const auto x = random_values(kRows * kHidden), w = random_values(kHidden);
  std::vector<float> y(x.size()), inv(kRows);
  for (auto _ : state)
    kernels::rms_norm_forward(x.data(), kRows, kHidden, kHidden, w.data(), 1e-5F, 0, y.data(),
                              kHidden, inv.data());
  set_bytes(state, 2 * 4 * kRows * kHidden);
}
BENCHMARK(rms_norm_forward)->UseRealTime();

void rms_norm_backward(benchmark::State& state) {
  const auto x = random_values(kRows * kHidden), w = random_values(kHidden);
  const auto dy = random_values(kRows * kHidden);
  std::vector<float> dx(x.size()), dw(kHidden), inv(kRows, 1);
  for (auto _ : state)
    kernels::rms_norm_backward(x.data(), kRows, kHidden, kHidden, w.data(), 0, inv.data(),
                               dy.data(), kHidden, dx.data(), kHidden,
                               state.range(0) != 0 ? dw.data() : nullptr);
  set_bytes(state, 4 * 4 * kRows * kHidden);
}
BENCHMARK(rms_norm_backward)->ArgName("dweight")->Arg(0)->Arg(1)->UseRealTime();

void layer_norm_forward(benchmark::State& state) {
  const auto x = random_values(kRows * kHidden), w = random_values(kHidden);
  std::vector<float> y(x.size()), mean(kRows), inv(kRows);
  for (auto _ : state)
    kernels::layer_norm_forward(x.data(), kRows, kHidden, kHidden, w.data(), w.data(), 1e-5F,
                                y.data(), kHidden, mean.data(), inv.data());
  set_bytes(state, 2 * 4 * kRows * kHidden);
}
BENCHMARK(layer_norm_forward)->UseRealTime();

void activation_forward(benchmark::State& state) {
  const auto act = static_cast<Activation>(state.range(0));
  const auto x = random_values(16384);
  std::vector<float> y(x.size());
  for (auto _ : state) kernels::activation_forward(act, x.data(), y.data(), 16384);
  set_bytes(state, 2 * 4 * 16384);
}
BENCHMARK(activation_forward)->ArgName("activation")->DenseRange(1, 7);

void swiglu_forward(benchmark::State& state) {
  const auto gate = random_values(kRows * kWide), up = random_values(kRows * kWide);
  std::vector<float> y(gate.size());
  for (auto _ : state)
    kernels::swiglu_forward(Activation::silu, gate.data(), up.data(), y.data(), kRows * kWide);
  set_bytes(state, 3 * 4 * kRows * kWide);
}
BENCHMARK(swiglu_forward)->UseRealTime();

void swiglu_backward(benchmark::State& state) {
  const auto gate = random_values(kRows * kWide), up = random_values(kRows * kWide);
  const auto dy = random_values(kRows * kWide);
  std::vector<float> dgate(gate.size()), dup(gate.size());
  for (auto _ : state)
    kernels::swiglu_backward(Activation::silu, gate.data(), up.data(), dy.data(), dgate.data(),
                             dup.data(), kRows * kWide);
  set_bytes(state, 5 * 4 * kRows * kWide);
}
BENCHMARK(swiglu_backward)->UseRealTime();

void rotary(benchmark::State& state) {
  auto x = random_values(kRows * kHidden);
  const std::vector<float> cos(kRows * 32, 0.6F), sin(kRows * 32, 0.8F);
  const auto style =
      state.range(0) == 0 ? kernels::RotaryStyle::half : kernels::RotaryStyle::interleaved;
  for (auto _ : state)
    kernels::rotary(x.data(), x.data(), kRows, kHidden / 64, 64, kHidden, cos.data(), sin.data(),
                    64, style, false);
  set_bytes(state, 2 * 4 * kRows * kHidden);
}
BENCHMARK(rotary)->ArgName("interleaved")->Arg(0)->Arg(1)->UseRealTime();

void cross_entropy(benchmark::State& state) {
  const Index rows = 64, vocab = 49152;
  auto logits = random_values(rows * vocab, 4);
  const std::vector<std::int64_t> labels(static_cast<std::size_t>(rows), 77);
  std::vector<float> loss(static_cast<std::size_t>(rows));
  std::vector<unsigned char> correct(static_cast<std::size_t>(rows));
  // With gradients the logits become probabilities after the first round, which costs the same.
  for (auto _ : state)
    kernels::cross_entropy_rows(logits.data(), rows, vocab, vocab, labels.data(), 1.0F,
                                state.range(0) != 0, loss.data(), correct.data());
  set_bytes(state, (state.range(0) != 0 ? 2 : 1) * 4 * rows * vocab);
}
BENCHMARK(cross_entropy)->ArgName("gradient")->Arg(0)->Arg(1)->UseRealTime();

void adamw(benchmark::State& state) {
  const Index n = 1 << 20;
  auto p = random_values(n), m = random_values(n);
  const auto g = random_values(n);
  std::vector<float> v(p.size(), 1);
  for (auto _ : state)
    kernels::adamw_step(p.data(), g.data(), m.data(), v.data(), n, 1e-3F, 0.9F, 0.999F, 1e-8F,
                        0.01F, 0.5F, 0.5F, 1.0F);
  set_bytes(state, 7 * 4 * n);
}
BENCHMARK(adamw)->UseRealTime();

void softmax(benchmark::State& state) {
  const Index rows = 1024, n = 256;
  const auto x = random_values(rows * n);
  std::vector<float> y(x.size());
  for (auto _ : state) kernels::softmax_forward(x.data(), y.data(), rows, n);
  set_bytes(state, 2 * 4 * rows * n);
}
BENCHMARK(softmax)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
