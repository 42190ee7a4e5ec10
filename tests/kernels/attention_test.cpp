#include "graft/kernels/attention.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "graft/base/thread_pool.hpp"

using graft::Index;
using graft::kernels::AttentionArgs;
using graft::kernels::Isa;

namespace {

/// One attention with random operands, in double and rounded to float.
struct Problem {
  AttentionArgs<double> sizes{};
  std::vector<double> q, k, v, dy, bias;
  std::vector<unsigned char> mask;

  explicit Problem(const AttentionArgs<double>& args, unsigned seed, bool masked = false, bool biased = false)
      : sizes(args) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    const Index e = args.v_head_dim > 0 ? args.v_head_dim : args.head_dim;
    sizes.ldq = args.heads * args.head_dim + 3;
    sizes.ldk = args.kv_heads * args.head_dim + 5;
    sizes.ldv = args.kv_heads * e + 1;
    const auto fill = [&](std::vector<double>& x, Index n) {
      x.resize(static_cast<std::size_t>(n));
      for (double& value : x) value = static_cast<float>(normal(generator));
    };
    fill(q, args.batch * args.q_len * sizes.ldq);
    fill(k, args.batch * args.kv_len * sizes.ldk);
    fill(v, args.batch * args.kv_len * sizes.ldv);
    fill(dy, args.batch * args.q_len * args.heads * e);
    if (biased) fill(bias, args.heads * args.q_len * args.kv_len);
    if (masked)
      for (Index i = 0; i < args.batch * args.kv_len; ++i) mask.push_back(generator() % 4 != 0);
  }

  template <class T>
  struct Results {
    std::vector<T> y, lse, dq, dk, dv;
  };
  template <class T>
  Results<T> run() const {
    const auto convert = [](const std::vector<double>& x) { return std::vector<T>(x.begin(), x.end()); };
    const auto vq = convert(q), vk = convert(k), vv = convert(v), vdy = convert(dy), vbias = convert(bias);
    AttentionArgs<T> a{};
    a.batch = sizes.batch;
    a.heads = sizes.heads;
    a.kv_heads = sizes.kv_heads;
    a.q_len = sizes.q_len;
    a.kv_len = sizes.kv_len;
    a.head_dim = sizes.head_dim;
    a.v_head_dim = sizes.v_head_dim;
    a.q = vq.data();
    a.ldq = sizes.ldq;
    a.k = vk.data();
    a.ldk = sizes.ldk;
    a.v = vv.data();
    a.ldv = sizes.ldv;
    a.scale = static_cast<T>(sizes.scale);
    a.causal = sizes.causal;
    a.window = sizes.window;
    a.key_mask = mask.empty() ? nullptr : mask.data();
    a.bias = bias.empty() ? nullptr : vbias.data();
    a.softcap = static_cast<T>(sizes.softcap);
    const Index e = a.v_head_dim > 0 ? a.v_head_dim : a.head_dim, width = a.heads * e;
    Results<T> r;
    r.y.assign(static_cast<std::size_t>(a.batch * a.q_len * width), T{7});
    r.lse.assign(static_cast<std::size_t>(a.batch * a.heads * a.q_len), T{7});
    r.dq.assign(vq.size(), T{1});
    r.dk.assign(vk.size(), T{2});
    r.dv.assign(vv.size(), T{3});
    attention_forward(a, r.y.data(), width, r.lse.data());
    attention_backward(a, r.y.data(), width, r.lse.data(), vdy.data(), width, r.dq.data(), a.ldq, r.dk.data(), a.ldk,
                       r.dv.data(), a.ldv);
    return r;
  }
};

template <class T>
double difference(const std::vector<T>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double error = 0, scale = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isinf(b[i])) {
      CHECK(static_cast<double>(a[i]) == b[i]);
      continue;
    }
    error = std::max(error, std::abs(static_cast<double>(a[i]) - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return error / scale;
}

std::vector<Problem> problems() {
  std::vector<Problem> list;
  const auto add = [&](Index batch, Index heads, Index kv_heads, Index q_len, Index kv_len, Index d, Index e, bool causal,
                       Index window, double softcap, bool masked, bool biased) {
    AttentionArgs<double> a{};
    a.batch = batch;
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.q_len = q_len;
    a.kv_len = kv_len;
    a.head_dim = d;
    a.v_head_dim = e;
    a.scale = 1 / std::sqrt(static_cast<double>(d));
    a.causal = causal;
    a.window = window;
    a.softcap = softcap;
    list.emplace_back(a, static_cast<unsigned>(list.size() + 1), masked, biased);
  };
  add(1, 1, 1, 1, 1, 4, 0, true, 0, 0, false, false);
  add(2, 4, 2, 9, 9, 8, 0, true, 0, 0, false, false);
  add(2, 9, 3, 70, 70, 64, 0, true, 0, 0, false, false);
  add(1, 4, 1, 131, 131, 10, 0, true, 4, 0, true, false);
  add(3, 2, 2, 17, 33, 24, 40, false, 0, 0, true, false);
  add(1, 2, 1, 65, 90, 33, 0, true, 0, 0, false, true);
  add(1, 2, 1, 40, 40, 16, 0, false, 0, 3.0, true, true);
  add(2, 3, 3, 5, 200, 7, 0, true, 64, 0, false, false);
  return list;
}

std::vector<Isa> isas() {
  std::vector<Isa> list;
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (graft::kernels::isa_supported(isa)) list.push_back(isa);
  return list;
}

struct RestoreIsa {
  Isa before = graft::kernels::active_isa();
  ~RestoreIsa() { graft::kernels::set_isa(before); }
};

}  // namespace

TEST_CASE("attention in float agrees with double on every instruction set, forward and backward") {
  const RestoreIsa restore;
  for (const Problem& problem : problems()) {
    const auto expected = problem.run<double>();
    for (Isa isa : isas()) {
      graft::kernels::set_isa(isa);
      const auto found = problem.run<float>();
      CAPTURE(graft::kernels::isa_name(isa), problem.sizes.q_len, problem.sizes.kv_len, problem.sizes.head_dim);
      CHECK(difference(found.y, expected.y) < 3e-6);
      CHECK(difference(found.lse, expected.lse) < 3e-6);
      CHECK(difference(found.dq, expected.dq) < 1e-5);
      CHECK(difference(found.dk, expected.dk) < 1e-5);
      CHECK(difference(found.dv, expected.dv) < 1e-5);
    }
  }
}

TEST_CASE("attention gradients in double agree with central differences") {
  for (Problem problem : problems()) {
    if (problem.sizes.q_len > 40) continue;
    const auto loss = [&](const Problem& p) {
      const auto r = p.run<double>();
      double sum = 0;
      for (std::size_t i = 0; i < r.y.size(); ++i) sum += r.y[i] * p.dy[i];
      return sum;
    };
    const auto r = problem.run<double>();
    const auto check = [&](std::vector<double>& x, const std::vector<double>& gradient, double start) {
      for (std::size_t i = 0; i < x.size(); i += x.size() / 7 + 1) {
        const double old = x[i], step = 1e-6;
        x[i] = old + step;
        const double up = loss(problem);
        x[i] = old - step;
        const double down = loss(problem);
        x[i] = old;
        CHECK(gradient[i] - start == Approx((up - down) / (2 * step)).margin(2e-7));
      }
    };
    check(problem.q, r.dq, 1);
    check(problem.k, r.dk, 2);
    check(problem.v, r.dv, 3);
  }
}

TEST_CASE("a query that sees no key gives zero, and no gradient flows through it") {
  AttentionArgs<double> a{};
  a.batch = a.heads = a.kv_heads = 1;
  a.q_len = a.kv_len = 3;
  a.head_dim = 4;
  a.scale = 1;
  a.causal = true;
  Problem problem(a, 5);
  problem.mask = {0, 1, 1};
  const auto r = problem.run<float>();
  for (std::size_t i = 0; i < 4; ++i) CHECK(r.y[i] == 0);
  CHECK(std::isinf(r.lse[0]));
  for (std::size_t i = 0; i < 4; ++i) CHECK(r.dq[i] == 1);
  CHECK(std::isfinite(r.dk[0]));
}

TEST_CASE("attention gives the same bits for any number of threads") {
  auto& pool = graft::ThreadPool::global();
  const int before = pool.threads();
  for (const Problem& problem : problems()) {
    pool.set_threads(1);
    const auto one = problem.run<float>();
    for (int threads : {2, 3}) {
      pool.set_threads(threads);
      const auto many = problem.run<float>();
      CHECK(one.y == many.y);
      CHECK(one.dq == many.dq);
      CHECK(one.dk == many.dk);
      CHECK(one.dv == many.dv);
    }
  }
  pool.set_threads(before);
}
