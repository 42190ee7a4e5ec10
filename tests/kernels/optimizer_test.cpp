#include "graft/kernels/optimizer.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/support.hpp"

using graft::Index;
using namespace kernel_tests;
using graft::kernels::adamw_step;
using graft::kernels::sgd_step;

namespace {

template <class T>
struct State {
  std::vector<T> p, m, v;
};

/// Some steps of AdamW with gradients that depend on the step.
template <class T>
State<T> adamw(Index n, int steps, T decay) {
  State<T> s{normal_values<T>(n, 1), std::vector<T>(static_cast<std::size_t>(n)),
             std::vector<T>(static_cast<std::size_t>(n))};
  for (int t = 1; t <= steps; ++t) {
    const auto g = normal_values<T>(n, static_cast<unsigned>(t + 1), 0.01);
    adamw_step(s.p.data(), g.data(), s.m.data(), s.v.data(), n, T(1e-2), T(0.9), T(0.999), T(1e-8),
               decay, T(1 - std::pow(0.9, t)), T(1 - std::pow(0.999, t)), T(0.5));
  }
  return s;
}

template <class T>
std::vector<T> sgd(Index n, int steps, double momentum, double dampening, double decay,
                   bool nesterov) {
  auto p = normal_values<T>(n, 1);
  std::vector<T> buffer(static_cast<std::size_t>(n), T(99));
  for (int t = 0; t < steps; ++t) {
    const auto g = normal_values<T>(n, static_cast<unsigned>(t + 2));
    sgd_step(p.data(), g.data(), momentum > 0 ? buffer.data() : nullptr, n, T(0.1), T(momentum),
             T(dampening), T(decay), nesterov, t == 0, T(2));
  }
  return p;
}

double difference(const std::vector<float>& a, const std::vector<double>& b) {
  double error = 0;
  for (std::size_t i = 0; i < a.size(); ++i) error = std::max(error, std::abs(double{a[i]} - b[i]));
  return error;
}

}  // namespace

TEST_CASE("the first AdamW step has the size of the learning rate") {
  std::vector<double> p{1, 1, 1}, m(3), v(3);
  const std::vector<double> g{1e-3, -5, 0};
  adamw_step(p.data(), g.data(), m.data(), v.data(), 3, 0.1, 0.9, 0.999, 1e-8, 0.0, 0.1, 0.001,
             1.0);
  CHECK(p[0] == Approx(0.9).epsilon(1e-4));
  CHECK(p[1] == Approx(1.1));
  CHECK(p[2] == 1);
}

TEST_CASE("AdamW reproduces a step worked out by hand") {
  double p = 2, m = 0.1, v = 0.04;
  const double g = 3;
  adamw_step(&p, &g, &m, &v, 1, 0.01, 0.9, 0.99, 1e-3, 0.1, 0.19, 0.0199, 0.5);
  CHECK(m == Approx(0.9 * 0.1 + 0.1 * 1.5));
  CHECK(v == Approx(0.99 * 0.04 + 0.01 * 2.25));
  const double denominator = std::sqrt(0.0621) / std::sqrt(0.0199) + 1e-3;
  CHECK(p == Approx(2 * (1 - 0.001) - 0.01 / 0.19 * 0.24 / denominator));
}

TEST_CASE("AdamW in float follows double on every instruction set") {
  for (Index n : {Index{1}, Index{15}, Index{16}, Index{37}, Index{70001}}) {
    const auto expected = adamw<double>(n, 5, 0.01);
    for_each_isa([&](const char* isa) {
      CAPTURE(isa, n);
      const auto found = adamw<float>(n, 5, 0.01F);
      CHECK(difference(found.p, expected.p) < 2e-6);
      CHECK(difference(found.m, expected.m) < 1e-8);
      CHECK(difference(found.v, expected.v) < 1e-9);
    });
  }
}

TEST_CASE("SGD follows its definition, with and without momentum") {
  for (bool nesterov : {false, true}) {
    for (double momentum : {0.0, 0.9}) {
      const double dampening = nesterov ? 0 : 0.25, decay = 0.01;
      const Index n = 53;
      auto p = normal_values<double>(n, 1);
      std::vector<double> buffer(p.size());
      for (int t = 0; t < 4; ++t) {
        const auto g = normal_values<double>(n, static_cast<unsigned>(t + 2));
        for (std::size_t i = 0; i < p.size(); ++i) {
          double step = 2 * g[i] + decay * p[i];
          if (momentum > 0) {
            buffer[i] = t == 0 ? step : momentum * buffer[i] + (1 - dampening) * step;
            step = nesterov ? step + momentum * buffer[i] : buffer[i];
          }
          p[i] -= 0.1 * step;
        }
      }
      const auto found = sgd<double>(n, 4, momentum, dampening, decay, nesterov);
      for (std::size_t i = 0; i < p.size(); ++i) CHECK(found[i] == Approx(p[i]).epsilon(1e-12));
      for_each_isa([&](const char* isa) {
        CAPTURE(isa, nesterov, momentum);
        CHECK(difference(sgd<float>(n, 4, momentum, dampening, decay, nesterov), p) < 2e-6);
      });
    }
  }
}

TEST_CASE("optimiser steps give the same bits for any number of threads") {
  const auto a = with_threads([] { return adamw<float>(150001, 2, 0.1F).p; });
  CHECK((a[0] == a[1] && a[0] == a[2]));
  const auto b = with_threads([] { return sgd<float>(150001, 2, 0.9, 0, 0, true); });
  CHECK((b[0] == b[1] && b[0] == b[2]));
}
