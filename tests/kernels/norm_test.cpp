#include "graft/kernels/norm.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/support.hpp"

using graft::Index;
using namespace kernel_tests;
namespace kernels = graft::kernels;

namespace {

struct Shape {
  Index rows, n;
  bool weighted;
};
const std::vector<Shape> kShapes{{1, 1, true},     {3, 5, true},     {7, 16, false},
                                 {2, 33, true},    {40, 64, true},   {65, 7, false},
                                 {200, 576, true}, {1000, 100, true}};

/// Everything that a norm computes, with gaps between the rows.
template <class T>
struct Outcome {
  std::vector<T> y, mean, inv, dx, dweight, dbias;
};

template <class T>
Outcome<T> run(bool layer, const Shape& s, double offset, const std::vector<double>& changed = {}) {
  const Index ldx = s.n + 3, ldy = s.n + 1, lddy = s.n + 2, lddx = s.n + 5;
  auto x = normal_values<T>(s.rows * ldx, 1, 2);
  if (!changed.empty()) x.assign(changed.begin(), changed.end());
  for (T& value : x) value += T{1};
  const auto w = normal_values<T>(s.n, 2), bias = normal_values<T>(s.n, 3);
  const auto dy = normal_values<T>(s.rows * lddy, 4);
  const auto rows = static_cast<std::size_t>(s.rows), n = static_cast<std::size_t>(s.n);
  Outcome<T> r;
  r.y.assign(rows * static_cast<std::size_t>(ldy), T{9});
  r.mean.assign(rows, T{});
  r.inv.assign(rows, T{});
  r.dx.assign(rows * static_cast<std::size_t>(lddx), T{1});
  r.dweight.assign(n, T{2});
  r.dbias.assign(n, T{3});
  const T* weight = s.weighted ? w.data() : nullptr;
  if (layer) {
    kernels::layer_norm_forward(x.data(), s.rows, s.n, ldx, weight,
                                s.weighted ? bias.data() : nullptr, T(1e-5), r.y.data(), ldy,
                                r.mean.data(), r.inv.data());
    kernels::layer_norm_backward(x.data(), s.rows, s.n, ldx, weight, r.mean.data(), r.inv.data(),
                                 dy.data(), lddy, r.dx.data(), lddx, r.dweight.data(),
                                 r.dbias.data());
  } else {
    kernels::rms_norm_forward(x.data(), s.rows, s.n, ldx, weight, T(1e-5), T(offset), r.y.data(),
                              ldy, r.inv.data());
    kernels::rms_norm_backward(x.data(), s.rows, s.n, ldx, weight, T(offset), r.inv.data(),
                               dy.data(), lddy, r.dx.data(), lddx, r.dweight.data());
  }
  return r;
}

double difference(const std::vector<float>& a, const std::vector<double>& b) {
  double error = 0, scale = 1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error = std::max(error, std::abs(double{a[i]} - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return error / scale;
}

}  // namespace

TEST_CASE("norms in float agree with double on every instruction set") {
  for (const Shape& s : kShapes) {
    for (bool layer : {false, true}) {
      for (double offset : {0.0, 1.0}) {
        const auto expected = run<double>(layer, s, offset);
        for_each_isa([&](const char* isa) {
          CAPTURE(isa, layer, s.rows, s.n, offset);
          const auto found = run<float>(layer, s, offset);
          CHECK(difference(found.y, expected.y) < 3e-6);
          CHECK(difference(found.mean, expected.mean) < 1e-6);
          if (s.n > 1) CHECK(difference(found.inv, expected.inv) < 3e-6);
          CHECK(difference(found.dx, expected.dx) < 1e-5);
          CHECK(difference(found.dweight, expected.dweight) < 1e-5);
          CHECK(difference(found.dbias, expected.dbias) < 1e-5);
        });
      }
    }
  }
}

TEST_CASE("rows of a norm have the moments that it promises") {
  const Shape s{5, 40, false};
  for (bool layer : {false, true}) {
    const auto r = run<double>(layer, s, 0);
    for (Index i = 0; i < s.rows; ++i) {
      double sum = 0, squares = 0;
      for (Index j = 0; j < s.n; ++j) {
        const double y = r.y[static_cast<std::size_t>(i * (s.n + 1) + j)];
        sum += y;
        squares += y * y;
      }
      CHECK(squares / 40 == Approx(1).epsilon(1e-4));
      if (layer) CHECK(sum == Approx(0).margin(1e-12));
      CHECK(r.y[static_cast<std::size_t>(i * (s.n + 1) + s.n)] == 9);
    }
  }
}

TEST_CASE("gradients of norms agree with central differences") {
  const Shape s{3, 9, true};
  const auto dy = normal_values<double>(s.rows * (s.n + 2), 4);
  for (bool layer : {false, true}) {
    const auto base = normal_values<double>(s.rows * (s.n + 3), 1, 2);
    const auto r = run<double>(layer, s, 1);
    const auto loss = [&](const std::vector<double>& x) {
      const auto moved = run<double>(layer, s, 1, x);
      double sum = 0;
      for (Index i = 0; i < s.rows; ++i)
        for (Index j = 0; j < s.n; ++j)
          sum += moved.y[static_cast<std::size_t>(i * (s.n + 1) + j)] *
                 dy[static_cast<std::size_t>(i * (s.n + 2) + j)];
      return sum;
    };
    for (Index i = 0; i < s.rows; ++i) {
      for (Index j = 0; j < s.n; ++j) {
        auto up = base, down = base;
        up[static_cast<std::size_t>(i * (s.n + 3) + j)] += 1e-6;
        down[static_cast<std::size_t>(i * (s.n + 3) + j)] -= 1e-6;
        CHECK(r.dx[static_cast<std::size_t>(i * (s.n + 5) + j)] - 1 ==
              Approx((loss(up) - loss(down)) / 2e-6).margin(1e-7));
      }
    }
    // The weight enters linearly: its gradient is Σ dy · z, with z = (x − mean) · inv.
    for (Index j = 0; j < s.n; ++j) {
      double sum = 0, bias = 0;
      for (Index i = 0; i < s.rows; ++i) {
        const auto row = static_cast<std::size_t>(i);
        const double x = base[static_cast<std::size_t>(i * (s.n + 3) + j)] + 1;
        const double d = dy[static_cast<std::size_t>(i * (s.n + 2) + j)];
        sum += d * (x - (layer ? r.mean[row] : 0)) * r.inv[row];
        bias += d;
      }
      CHECK(r.dweight[static_cast<std::size_t>(j)] == Approx(2 + sum));
      if (layer) CHECK(r.dbias[static_cast<std::size_t>(j)] == Approx(3 + bias));
    }
  }
}

TEST_CASE("a norm may write over its input, and gradients may be left out") {
  auto x = normal_values<float>(4 * 50, 5);
  const auto w = normal_values<float>(50, 6), dy = normal_values<float>(4 * 50, 7);
  std::vector<float> y(x.size()), inv(4), dx(x.size()), alone(x.size()), dw(50), dw_alone(50);
  kernels::rms_norm_forward(x.data(), 4, 50, 50, w.data(), 1e-6F, 0, y.data(), 50, inv.data());
  kernels::rms_norm_backward(x.data(), 4, 50, 50, w.data(), 0, inv.data(), dy.data(), 50, dx.data(),
                             50, dw.data());
  kernels::rms_norm_backward(x.data(), 4, 50, 50, w.data(), 0, inv.data(), dy.data(), 50,
                             alone.data(), 50, nullptr);
  kernels::rms_norm_backward(x.data(), 4, 50, 50, w.data(), 0, inv.data(), dy.data(), 50, nullptr,
                             50, dw_alone.data());
  CHECK(alone == dx);
  CHECK(dw_alone == dw);
  kernels::rms_norm_forward(x.data(), 4, 50, 50, w.data(), 1e-6F, 0, x.data(), 50, inv.data());
  CHECK(x == y);
}

TEST_CASE("a row of zeros gives zeros") {
  const std::vector<float> x(48, 0);
  std::vector<float> y(48, 1), mean(2), inv(2);
  kernels::rms_norm_forward(x.data(), 2, 24, 24, nullptr, 1e-6F, 0, y.data(), 24, inv.data());
  for (float value : y) CHECK(value == 0);
  kernels::layer_norm_forward(x.data(), 2, 24, 24, nullptr, nullptr, 1e-6F, y.data(), 24,
                              mean.data(), inv.data());
  for (float value : y) CHECK(value == 0);
}

TEST_CASE("norms give the same bits for any number of threads") {
  const Shape s{1000, 131, true};
  for (bool layer : {false, true}) {
    const auto r = with_threads([&] { return run<float>(layer, s, 0); });
    for (std::size_t i : {1U, 2U}) {
      CHECK(r[0].y == r[i].y);
      CHECK(r[0].dx == r[i].dx);
      CHECK(r[0].dweight == r[i].dweight);
      CHECK(r[0].dbias == r[i].dbias);
    }
  }
}
