#include "graft/kernels/elementwise.hpp"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "graft/quant/half.hpp"
#include "kernels/support.hpp"

using graft::Index;
using namespace kernel_tests;
namespace kernels = graft::kernels;
using kernels::Activation;

namespace {

const std::vector<Index> kSizes{0, 1, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 1000, 70001};
const std::vector<Activation> kActivations{
    Activation::identity, Activation::relu,    Activation::gelu, Activation::gelu_tanh,
    Activation::silu,     Activation::sigmoid, Activation::tanh, Activation::quick_gelu};

// Written by the definitions, apart from the library's own code.
double exact(Activation act, double x) {
  const double u = std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x);
  switch (act) {
    case Activation::identity:
      return x;
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:
      return x / (1 + std::exp(-2 * u));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
    case Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
  }
  return 0;
}

double relative_error(double found, double expected) {
  return std::abs(found - expected) / std::max(std::abs(expected), 1e-36);
}

}  // namespace

TEST_CASE("sums, differences, products and multiples are exact for every size") {
  for_each_isa([](const char* isa) {
    CAPTURE(isa);
    for (Index n : kSizes) {
      CAPTURE(n);
      const auto a = normal_values<float>(n, 1), b = normal_values<float>(n, 2);
      const auto size = static_cast<std::size_t>(n);
      std::vector<float> y(size + 1, 9);
      bool same = true;
      kernels::add(a.data(), b.data(), y.data(), n);
      for (std::size_t i = 0; i < size; ++i) same = same && y[i] == a[i] + b[i];
      kernels::sub(a.data(), b.data(), y.data(), n);
      for (std::size_t i = 0; i < size; ++i) same = same && y[i] == a[i] - b[i];
      kernels::mul(a.data(), b.data(), y.data(), n);
      for (std::size_t i = 0; i < size; ++i) same = same && y[i] == a[i] * b[i];
      kernels::scale(0.5F, a.data(), y.data(), n);
      for (std::size_t i = 0; i < size; ++i) same = same && y[i] == 0.5F * a[i];
      kernels::axpy(-2.0F, a.data(), y.data(), n);
      for (std::size_t i = 0; i < size; ++i) same = same && y[i] == -1.5F * a[i];
      kernels::fill(3.0F, y.data(), n);
      for (std::size_t i = 0; i < size; ++i) same = same && y[i] == 3;
      CHECK(same);
      CHECK(y[size] == 9);
    }
  });
}

TEST_CASE("values are packed as the nearest bf16 and come back exactly") {
  for_each_isa([](const char* isa) {
    CAPTURE(isa);
    for (Index n : kSizes) {
      CAPTURE(n);
      auto x = normal_values<float>(n + 1, 4);
      const float special[] = {0.0F,
                               -0.0F,
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::quiet_NaN(),
                               std::numeric_limits<float>::denorm_min(),
                               1e-40F,
                               std::numeric_limits<float>::max(),
                               1.00390625F,
                               1.01171875F};
      for (Index i = 0; i < n && i < 10; ++i) x[static_cast<std::size_t>(n - i)] = special[i];
      std::vector<std::uint16_t> halves(static_cast<std::size_t>(n) + 1, 77);
      std::vector<float> back(static_cast<std::size_t>(n) + 1, 9);
      kernels::pack_bf16(x.data() + 1, halves.data(), n);
      kernels::unpack_bf16(halves.data(), back.data(), n);
      bool same = true;
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        same = same && halves[i] == graft::quant::f32_to_bf16(x[i + 1]);
        same = same &&
               std::bit_cast<std::uint32_t>(back[i]) == static_cast<std::uint32_t>(halves[i]) << 16;
      }
      CHECK(same);
      CHECK(halves.back() == 77);
      CHECK(back.back() == 9);
    }
  });
}

TEST_CASE("an operation may write over its input") {
  auto x = normal_values<float>(70001, 3);
  const auto before = x;
  kernels::add(x.data(), x.data(), x.data(), 70001);
  kernels::scale(0.5F, x.data(), x.data(), 70001);
  CHECK(x == before);
}

TEST_CASE("sum and dot agree with double and do not depend on the threads") {
  for_each_isa([](const char* isa) {
    CAPTURE(isa);
    for (Index n : {Index{0}, Index{1}, Index{17}, Index{129}, Index{70001}, Index{1500007}}) {
      const auto a = normal_values<float>(n, 4), b = normal_values<float>(n, 5);
      double total = 0, product = 0, size = 0, products = 0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        total += double{a[i]};
        size += std::abs(double{a[i]});
        product += double{a[i]} * double{b[i]};
        products += std::abs(double{a[i]} * double{b[i]});
      }
      CHECK(std::abs(static_cast<double>(kernels::sum(a.data(), n)) - total) <= 2e-7 * size);
      CHECK(std::abs(static_cast<double>(kernels::dot(a.data(), b.data(), n)) - product) <=
            2e-7 * products);
      const auto sums = with_threads([&] { return kernels::sum(a.data(), n); });
      CHECK((sums[0] == sums[1] && sums[0] == sums[2]));
      const auto dots = with_threads([&] { return kernels::dot(a.data(), b.data(), n); });
      CHECK((dots[0] == dots[1] && dots[0] == dots[2]));
    }
  });
}

TEST_CASE("activations agree with their definitions over the whole range of float") {
  std::vector<float> x;
  for (float v = 1e-30F; v < 90; v *= 1.013F) {
    x.push_back(v);
    x.push_back(-v);
  }
  std::vector<float> y(x.size());
  for_each_isa([&](const char* isa) {
    for (Activation act : kActivations) {
      kernels::activation_forward(act, x.data(), y.data(), static_cast<Index>(x.size()));
      const bool gaussian = act == Activation::gelu || act == Activation::gelu_tanh;
      double near = 0, tail = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double expected = exact(act, double{x[i]});
        // Below this the exponential is cut off to zero.
        if (std::abs(expected) < 1e-36) {
          CHECK(std::abs(y[i]) < 1.1e-36F);
          continue;
        }
        double& worst = x[i] < -3 ? tail : near;
        worst = std::max(worst, relative_error(double{y[i]}, expected));
      }
      CAPTURE(isa, static_cast<int>(act), near, tail);
      // The argument of the exponential is itself rounded in the variants of gelu.
      const bool rounded = gaussian || act == Activation::quick_gelu;
      CHECK(near < (rounded ? 9e-7 : 4e-7));
      CHECK(tail < (rounded ? 1e-5 : 4e-7));
    }
  });
}

TEST_CASE("activations and their slopes stay finite for huge values and pass NaN on") {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x{1e4F, -1e4F, 1e19F, -1e19F, 3e38F, -3e38F, -inf, nan, 0, -0.0F};
  for_each_isa([&](const char* isa) {
    for (Activation act : kActivations) {
      CAPTURE(isa, static_cast<int>(act));
      std::vector<float> y(x.size()), slope(x.size(), 0);
      const std::vector<float> dy(x.size(), 1);
      const auto n = static_cast<Index>(x.size());
      kernels::activation_forward(act, x.data(), y.data(), n);
      kernels::activation_backward(act, x.data(), dy.data(), slope.data(), n);
      for (std::size_t i = 0; i < 6; ++i) {
        CHECK(std::isfinite(y[i]));
        CHECK(std::isfinite(slope[i]));
        const double expected = x[i] < 0 && act != Activation::identity
                                    ? (act == Activation::tanh ? -1.0 : 0.0)
                                    : exact(act, double{x[i]});
        CHECK(static_cast<double>(y[i]) == Approx(expected));
      }
      if (act != Activation::identity) CHECK(y[6] == (act == Activation::tanh ? -1 : 0));
      CHECK(std::isnan(y[7]));
      CHECK(std::isfinite(slope[8]));
      CHECK(y[8] == Approx(act == Activation::sigmoid ? 0.5 : 0.0));
    }
  });
}

TEST_CASE("slopes of activations agree with central differences in double") {
  const auto x = normal_values<double>(200, 6, 3);
  const auto dy = normal_values<double>(200, 7);
  for (Activation act : kActivations) {
    CAPTURE(static_cast<int>(act));
    std::vector<double> dx(x.size(), 2);
    kernels::activation_backward(act, x.data(), dy.data(), dx.data(), 200);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double step = 1e-6;
      const double slope = (exact(act, x[i] + step) - exact(act, x[i] - step)) / (2 * step);
      CHECK(dx[i] == Approx(2 + dy[i] * slope).margin(1e-8));
    }
  }
}

TEST_CASE("activations in float follow double, gated and not, forward and backward") {
  for_each_isa([](const char* isa) {
    for (Activation act : kActivations) {
      for (Index n : {Index{1}, Index{13}, Index{16}, Index{50}, Index{70001}}) {
        CAPTURE(isa, static_cast<int>(act), n);
        const auto size = static_cast<std::size_t>(n);
        const auto x = normal_values<float>(n, 8, 3), up = normal_values<float>(n, 9);
        const auto dy = normal_values<float>(n, 10);
        const auto wide = widen(x), wide_up = widen(up), wide_dy = widen(dy);
        std::vector<double> y(size), dx(size), dup(size), value(size), slope(size, 1);
        std::vector<float> fy(size), fdx = dy, fdup(size), fvalue(size), fslope(size, 1);
        kernels::swiglu_forward(act, wide.data(), wide_up.data(), y.data(), n);
        kernels::swiglu_backward(act, wide.data(), wide_up.data(), wide_dy.data(), dx.data(),
                                 dup.data(), n);
        kernels::activation_forward(act, wide.data(), value.data(), n);
        kernels::activation_backward(act, wide.data(), wide_dy.data(), slope.data(), n);
        kernels::swiglu_forward(act, x.data(), up.data(), fy.data(), n);
        kernels::swiglu_backward(act, x.data(), up.data(), fdx.data(), fdx.data(), fdup.data(), n);
        kernels::activation_forward(act, x.data(), fvalue.data(), n);
        kernels::activation_backward(act, x.data(), dy.data(), fslope.data(), n);
        double worst = 0;
        for (std::size_t i = 0; i < size; ++i) {
          CHECK(value[i] == Approx(exact(act, wide[i])).epsilon(1e-12).margin(1e-15));
          CHECK(y[i] == Approx(value[i] * wide_up[i]).epsilon(1e-12));
          const double scale = 1 + std::abs(wide_dy[i]) * (1 + std::abs(wide_up[i]));
          worst = std::max({worst, std::abs(double{fy[i]} - y[i]) / (scale + std::abs(y[i])),
                            std::abs(double{fdx[i]} - dx[i]) / scale,
                            std::abs(double{fdup[i]} - dup[i]) / (scale * (1 + std::abs(value[i]))),
                            std::abs(double{fvalue[i]} - value[i]) / (1 + std::abs(value[i])),
                            std::abs(double{fslope[i]} - slope[i]) / scale});
          if (i >= 200) i += 97;
        }
        CHECK(worst < 1e-6);
      }
    }
  });
}

TEST_CASE("the gradient of one side of a gate can be left out") {
  const auto x = normal_values<float>(37, 11), up = normal_values<float>(37, 12);
  const auto dy = normal_values<float>(37, 13);
  std::vector<float> dx(37), dup(37), alone(37);
  kernels::swiglu_backward(Activation::silu, x.data(), up.data(), dy.data(), dx.data(), dup.data(),
                           37);
  kernels::swiglu_backward(Activation::silu, x.data(), up.data(), dy.data(), alone.data(), nullptr,
                           37);
  CHECK(alone == dx);
  kernels::swiglu_backward(Activation::silu, x.data(), up.data(), dy.data(), nullptr, alone.data(),
                           37);
  CHECK(alone == dup);
}

TEST_CASE("a gate kept in bf16 gives the bits of its values in float") {
  for_each_isa([](const char* isa) {
    INFO(isa);
    for (Index n : {Index{1}, Index{37}, Index{70001}}) {
      const auto size = static_cast<std::size_t>(n);
      const auto dy = normal_values<float>(n, 23);
      std::vector<float> x = normal_values<float>(n, 21, 3), up = normal_values<float>(n, 22);
      std::vector<std::uint16_t> half(size), half_up(size);
      for (auto [from, to] : {std::pair{&x, &half}, std::pair{&up, &half_up}}) {
        kernels::pack_bf16(from->data(), to->data(), n);
        kernels::unpack_bf16(to->data(), from->data(), n);
      }
      std::vector<float> y(size), again(size), dx(size), dup(size), dx_again(size), dup_again(size);
      kernels::swiglu_forward(Activation::silu, x.data(), up.data(), y.data(), n);
      kernels::swiglu_forward(Activation::silu, half.data(), half_up.data(), again.data(), n);
      CHECK(y == again);
      kernels::swiglu_backward(Activation::silu, x.data(), up.data(), dy.data(), dx.data(),
                               dup.data(), n);
      kernels::swiglu_backward(Activation::silu, half.data(), half_up.data(), dy.data(),
                               dx_again.data(), dup_again.data(), n);
      CHECK(dx == dx_again);
      CHECK(dup == dup_again);
    }
  });
}

TEST_CASE("softmax in float agrees with double, forward and backward") {
  for_each_isa([](const char* isa) {
    for (Index n : {1, 2, 9, 16, 33, 300}) {
      const Index rows = n == 300 ? 400 : 7;
      CAPTURE(isa, n);
      const auto x = normal_values<float>(rows * n, 14, 4), dy = normal_values<float>(rows * n, 15);
      const auto wide = widen(x), wide_dy = widen(dy);
      std::vector<float> y(x.size()), dx(x.size(), 1);
      std::vector<double> exact_y(x.size()), exact_dx(x.size(), 1);
      kernels::softmax_forward(x.data(), y.data(), rows, n);
      kernels::softmax_backward(y.data(), dy.data(), dx.data(), rows, n);
      kernels::softmax_forward(wide.data(), exact_y.data(), rows, n);
      kernels::softmax_backward(exact_y.data(), wide_dy.data(), exact_dx.data(), rows, n);
      double worst = 0, worst_dx = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        worst = std::max(worst, relative_error(double{y[i]}, exact_y[i]));
        worst_dx = std::max(worst_dx, std::abs(double{dx[i]} - exact_dx[i]));
      }
      CHECK(worst < 2e-6);
      CHECK(worst_dx < 1e-6);
    }
  });
}

TEST_CASE("softmax of double sums to one and its gradient agrees with central differences") {
  auto x = normal_values<double>(3 * 11, 16, 2);
  const auto dy = normal_values<double>(3 * 11, 17);
  std::vector<double> y(x.size()), dx(x.size());
  kernels::softmax_forward(x.data(), y.data(), 3, 11);
  kernels::softmax_backward(y.data(), dy.data(), dx.data(), 3, 11);
  CHECK(kernels::sum(y.data(), 33) == Approx(3));
  for (std::size_t i = 0; i < x.size(); ++i) {
    double loss[2];
    for (int side = 0; side < 2; ++side) {
      const double old = x[i];
      x[i] += side == 0 ? 1e-6 : -1e-6;
      kernels::softmax_forward(x.data(), y.data(), 3, 11);
      loss[side] = kernels::dot(y.data(), dy.data(), 33);
      x[i] = old;
    }
    CHECK(dx[i] == Approx((loss[0] - loss[1]) / 2e-6).margin(1e-8));
  }
}

TEST_CASE("minus infinity takes no part in a softmax") {
  const float inf = std::numeric_limits<float>::infinity();
  for_each_isa([&](const char* isa) {
    CAPTURE(isa);
    std::vector<float> x(40, -inf), y(40, 5);
    kernels::softmax_forward(x.data(), y.data(), 2, 20);
    for (float value : y) CHECK(value == 0);
    x[3] = -7;
    x[19] = -7;
    kernels::softmax_forward(x.data(), y.data(), 2, 20);
    for (std::size_t i = 0; i < 40; ++i) CHECK(y[i] == (i == 3 || i == 19 ? 0.5F : 0.0F));
  });
}

TEST_CASE("activations give the same bits for any number of threads and any alignment") {
  const Index n = 200003;
  const auto x = normal_values<float>(n, 18, 3);
  const auto run = [&](Index first) {
    std::vector<float> y(static_cast<std::size_t>(n - first));
    kernels::activation_forward(Activation::gelu, x.data() + first, y.data(), n - first);
    return y;
  };
  const auto results = with_threads([&] { return run(0); });
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
  const auto shifted = run(5);
  CHECK(std::equal(shifted.begin(), shifted.end(), results[0].begin() + 5));
}
