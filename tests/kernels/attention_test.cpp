#include "graft/kernels/attention.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "graft/kernels/frozen.hpp"
#include "kernels/support.hpp"

using graft::Index;
using graft::kernels::AttentionArgs;
using namespace kernel_tests;

namespace {

/// One attention with random operands, in double and rounded to float.
struct Problem {
  AttentionArgs<double> sizes{};
  std::vector<double> q, k, v, dy, bias;
  std::vector<unsigned char> mask;

  explicit Problem(const AttentionArgs<double>& args, unsigned seed, bool masked = false,
                   bool biased = false, Index stride = 0)
      : sizes(args) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    const Index e = args.v_head_dim > 0 ? args.v_head_dim : args.head_dim;
    sizes.ldq = args.heads * args.head_dim + 3;
    sizes.ldk = args.kv_heads * args.head_dim + 5;
    sizes.ldv = args.kv_heads * e + 1;
    if (stride > 0) sizes.ldq = sizes.ldk = sizes.ldv = stride;
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
    std::vector<T> y, lse, dq, dk, dv, dbias;
  };
  /// Forward and backward; `only` keeps one of the gradients 0, 1, 2, 3 and passes null for the
  /// others.
  template <class T>
  Results<T> run(int only = -1) const {
    const auto convert = [](const std::vector<double>& x) {
      return std::vector<T>(x.begin(), x.end());
    };
    const auto vq = convert(q), vk = convert(k), vv = convert(v), vdy = convert(dy),
               vbias = convert(bias);
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
    a.compute = sizes.compute;
    const Index e = a.v_head_dim > 0 ? a.v_head_dim : a.head_dim, width = a.heads * e;
    Results<T> r;
    r.y.assign(static_cast<std::size_t>(a.batch * a.q_len * width), T{7});
    r.lse.assign(static_cast<std::size_t>(a.batch * a.heads * a.q_len), T{7});
    r.dq.assign(vq.size(), T{1});
    r.dk.assign(vk.size(), T{2});
    r.dv.assign(vv.size(), T{3});
    r.dbias.assign(vbias.size(), T{4});
    attention_forward(a, r.y.data(), width, r.lse.data());
    const auto wanted = [&](int i, std::vector<T>& x) {
      return only < 0 || only == i ? x.data() : nullptr;
    };
    attention_backward(a, r.y.data(), width, r.lse.data(), vdy.data(), width, wanted(0, r.dq),
                       a.ldq, wanted(1, r.dk), a.ldk, wanted(2, r.dv), a.ldv,
                       bias.empty() ? nullptr : wanted(3, r.dbias));
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
  const auto add = [&](Index batch, Index heads, Index kv_heads, Index q_len, Index kv_len, Index d,
                       Index e, bool causal, Index window, double softcap, bool masked, bool biased,
                       Index stride = 0) {
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
    list.emplace_back(a, static_cast<unsigned>(list.size() + 1), masked, biased, stride);
  };
  add(1, 1, 1, 1, 1, 4, 0, true, 0, 0, false, false);
  add(2, 4, 2, 9, 9, 8, 0, true, 0, 0, false, false);
  add(2, 9, 3, 70, 70, 64, 0, true, 0, 0, false, false);
  add(1, 4, 1, 131, 131, 10, 0, true, 4, 0, true, false);
  add(3, 2, 2, 17, 33, 24, 40, false, 0, 0, true, false);
  add(1, 2, 1, 65, 90, 33, 0, true, 0, 0, false, true);
  add(1, 2, 1, 40, 40, 16, 0, false, 0, 3.0, true, true);
  add(2, 3, 3, 5, 200, 7, 0, true, 64, 0, false, false);
  // Few columns: generation. Several parts of the keys, with everything at once, parts of several
  // blocks, and rows of a batch with masks of their own.
  add(1, 2, 1, 1, 8300, 7, 0, true, 0, 0, false, true);
  add(3, 2, 1, 1, 300, 9, 0, true, 0, 0, true, false);
  add(2, 6, 2, 1, 700, 64, 0, true, 0, 0, false, false);
  add(1, 8, 1, 1, 270, 20, 12, true, 100, 5.0, true, true);
  add(2, 2, 2, 4, 37, 16, 48, false, 9, 0, true, true);
  // Rows as far apart as whole pages of the cache, more queries than keys, a window alone.
  add(1, 8, 8, 70, 130, 64, 0, true, 0, 0, false, false, 512);
  add(1, 2, 2, 90, 33, 16, 0, true, 0, 0, false, false);
  add(1, 3, 1, 150, 150, 32, 0, false, 20, 0, false, false);
  // The columns of one key/value head go to several tasks.
  add(1, 5, 1, 200, 200, 24, 40, true, 70, 2.0, true, true);
  // Rows of a batch share the biases.
  add(3, 4, 2, 75, 90, 24, 40, false, 0, 0, true, true);
  return list;
}

}  // namespace

TEST_CASE("attention in float agrees with double on every instruction set, forward and backward") {
  for (const Problem& problem : problems()) {
    const auto expected = problem.run<double>();
    for_each_isa([&](const char* isa) {
      const auto found = problem.run<float>();
      CAPTURE(isa, problem.sizes.q_len, problem.sizes.kv_len, problem.sizes.head_dim);
      CHECK(difference(found.y, expected.y) < 3e-6);
      CHECK(difference(found.lse, expected.lse) < 3e-6);
      CHECK(difference(found.dq, expected.dq) < 1e-5);
      CHECK(difference(found.dk, expected.dk) < 1e-5);
      CHECK(difference(found.dv, expected.dv) < 1e-5);
      CHECK(difference(found.dbias, expected.dbias) < 1e-5);
    });
  }
}

TEST_CASE("attention of bf16 pairs agrees with double to the rounding of its operands") {
  for (Problem problem : problems()) {
    const auto expected = problem.run<double>();
    const auto exact = problem.run<float>();
    problem.sizes.compute = graft::kernels::Compute::bf16;
    const auto found = problem.run<float>();
    CAPTURE(problem.sizes.q_len, problem.sizes.kv_len, problem.sizes.head_dim);
    CHECK(difference(found.y, expected.y) < 2e-2);
    CHECK(difference(found.lse, expected.lse) < 2e-2);
    CHECK(difference(found.dq, expected.dq) < 3e-2);
    CHECK(difference(found.dk, expected.dk) < 3e-2);
    CHECK(difference(found.dv, expected.dv) < 3e-2);
    CHECK(difference(found.dbias, expected.dbias) < 3e-2);
    const bool pairs = graft::kernels::bf16_is_fast() &&
                       problem.sizes.heads / problem.sizes.kv_heads * problem.sizes.q_len > 8;
    CHECK((found.dv == exact.dv) != pairs);
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
    const auto check = [&](std::vector<double>& x, const std::vector<double>& gradient,
                           double start) {
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
    check(problem.bias, r.dbias, 4);
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

TEST_CASE("keys that padding hides from everyone change nothing") {
  AttentionArgs<double> a{};
  a.batch = 1;
  a.heads = a.kv_heads = 2;
  a.q_len = a.kv_len = 20;
  a.head_dim = 16;
  a.scale = 0.25;
  a.causal = true;
  Problem padded(a, 6);
  const Index left = 7;
  for (Index j = 0; j < 20; ++j) padded.mask.push_back(j >= left);
  // The same without the hidden rows.
  a.q_len = a.kv_len = 20 - left;
  Problem plain(a, 6);
  const auto cut = [&](const std::vector<double>& x, Index stride) {
    return std::vector<double>(x.begin() + left * stride, x.end());
  };
  plain.q = cut(padded.q, padded.sizes.ldq);
  plain.k = cut(padded.k, padded.sizes.ldk);
  plain.v = cut(padded.v, padded.sizes.ldv);
  plain.dy = cut(padded.dy, 32);
  for_each_isa([&](const char* isa) {
    CAPTURE(isa);
    const auto x = padded.run<float>(), y = plain.run<float>();
    CHECK(difference(std::vector<float>(x.y.begin() + left * 32, x.y.end()), widen(y.y)) < 1e-6);
    CHECK(difference(std::vector<float>(x.dk.begin() + left * padded.sizes.ldk, x.dk.end()),
                     widen(y.dk)) < 1e-6);
    for (std::size_t i = 0; i < static_cast<std::size_t>(left * padded.sizes.ldk); ++i)
      CHECK(x.dk[i] == 2);
  });
}

TEST_CASE("each gradient of attention can be left out") {
  for (const Problem& problem : problems()) {
    const auto all = problem.run<float>();
    for (int kept = 0; kept < 4; ++kept) {
      const auto some = problem.run<float>(kept);
      // With the gradient of the bias, sums over queries may have other parts.
      if (kept == 0) CHECK(some.dq == all.dq);
      if (kept == 1) CHECK(difference(some.dk, widen(all.dk)) < 1e-6);
      if (kept == 2) CHECK(difference(some.dv, widen(all.dv)) < 1e-6);
      if (kept == 3) CHECK(some.dbias == all.dbias);
      if (kept != 0) CHECK(some.dq[0] == 1);
    }
  }
}

TEST_CASE("a bias of minus infinity hides keys, and NaN is passed on") {
  AttentionArgs<double> a{};
  a.batch = a.heads = a.kv_heads = 1;
  a.q_len = 70;
  a.kv_len = 70;
  a.head_dim = 8;
  a.scale = 1;
  for (Index rows : {Index{70}, Index{3}}) {  // both ways of running
    a.q_len = rows;
    Problem problem(a, 7, false, true);
    for (std::size_t j = 0; j < 70; ++j) problem.bias[j] = -std::numeric_limits<double>::infinity();
    for (std::size_t j = 71; j < 140; ++j)
      problem.bias[j] = -std::numeric_limits<double>::infinity();
    problem.q[static_cast<std::size_t>(2 * problem.sizes.ldq)] = std::nan("");
    for_each_isa([&](const char* isa) {
      CAPTURE(isa, rows);
      const auto r = problem.run<float>();
      for (std::size_t c = 0; c < 8; ++c) {
        CHECK(r.y[c] == 0);
        CHECK(r.y[8 + c] == Approx(problem.v[c]));
        CHECK(std::isnan(r.y[16 + c]));
      }
      CHECK((std::isinf(r.lse[0]) && r.lse[0] < 0));
    });
    const auto exact = problem.run<double>();
    CHECK(exact.y[0] == 0);
    CHECK(exact.y[8] == Approx(problem.v[0]));
  }
}

TEST_CASE("huge scores do not overflow the softmax of attention") {
  AttentionArgs<double> a{};
  a.batch = a.heads = a.kv_heads = 1;
  a.q_len = a.kv_len = 40;
  a.head_dim = 16;
  a.scale = 1000;
  const Problem problem(a, 8);
  const auto expected = problem.run<double>();
  for_each_isa([&](const char* isa) {
    CAPTURE(isa);
    CHECK(difference(problem.run<float>().y, expected.y) < 1e-3);
  });
}

TEST_CASE("attention gives the same bits for any number of threads") {
  const auto compute = GENERATE(graft::kernels::Compute::f32, graft::kernels::Compute::bf16);
  for (Problem problem : problems()) {
    problem.sizes.compute = compute;
    const auto results = with_threads([&] { return problem.run<float>(); });
    for (std::size_t i : {1U, 2U}) {
      CHECK(results[0].y == results[i].y);
      CHECK(results[0].dq == results[i].dq);
      CHECK(results[0].dk == results[i].dk);
      CHECK(results[0].dv == results[i].dv);
      CHECK(results[0].dbias == results[i].dbias);
    }
  }
}
