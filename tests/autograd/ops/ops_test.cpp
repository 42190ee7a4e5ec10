#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/linalg.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/autograd/ops/norm.hpp"
#include "graft/autograd/ops/reduce.hpp"
#include "graft/autograd/ops/rotary.hpp"
#include "graft/autograd/ops/shape.hpp"

namespace {

using graft::Index;
using graft::Shape;
using graft::Transpose;
using Parameter = graft::BasicParameter<double>;
using Tape = graft::BasicTape<double>;
using Tensor = graft::BasicTensor<double>;
using Var = graft::BasicVar<double>;

Parameter random_parameter(const Shape& shape, unsigned seed, double shift = 0) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  auto t = Tensor::empty(shape);
  for (double& v : t) v = normal(generator) + shift;
  return Parameter(t);
}

/// Error of the gradient of Σ weights ⊙ f(parameters).
template <class F>
double error_of(F f, const std::vector<Parameter>& parameters) {
  const auto result = graft::gradient_check(
      [&](Tape& tape) {
        std::vector<Var> vars;
        for (const auto& p : parameters) vars.push_back(tape.parameter(p));
        const Var y = f(vars);
        auto weights = Tensor::empty(y.shape());
        for (Index i = 0; i < weights.size(); ++i)
          weights[i] = 0.3 + 0.1 * static_cast<double>((i * 7) % 11);
        return sum(mul(y, tape.constant(weights)));
      },
      parameters);
  return result.relative_error;
}

}  // namespace

TEST_CASE("elementwise operations broadcast and have the gradients of their formulas") {
  const auto a = random_parameter({3, 4}, 1), b = random_parameter({4}, 2, 3),
             c = random_parameter({3, 1}, 3, 3);
  const auto d = random_parameter({2, 3, 4}, 4), one = random_parameter({1}, 5, 2);
  CHECK(error_of([](auto& v) { return v[0] + v[1]; }, {a, b}) < 1e-8);
  CHECK(error_of([](auto& v) { return v[0] - v[1]; }, {a, c}) < 1e-8);
  CHECK(error_of([](auto& v) { return v[0] * v[1]; }, {d, c}) < 1e-8);
  CHECK(error_of([](auto& v) { return v[0] / v[1]; }, {d, b}) < 1e-7);
  CHECK(error_of([](auto& v) { return v[1] / v[0]; }, {one, a}) < 1e-7);
  CHECK(error_of([](auto& v) { return v[0] * v[1]; }, {c, b}) < 1e-8);
  CHECK_THROWS_AS(error_of([](auto& v) { return v[0] + v[1]; }, {a, random_parameter({3}, 1)}),
                  graft::ShapeError);
}

TEST_CASE("functions of one number have the gradients of their formulas") {
  const auto x = random_parameter({3, 5}, 6), positive = random_parameter({7}, 7, 6);
  CHECK(error_of([](auto& v) { return exp(v[0]); }, {x}) < 1e-8);
  CHECK(error_of([](auto& v) { return log(v[0]); }, {positive}) < 1e-7);
  CHECK(error_of([](auto& v) { return sqrt(v[0]); }, {positive}) < 1e-7);
  CHECK(error_of([](auto& v) { return square(v[0]); }, {x}) < 1e-8);
  CHECK(error_of([](auto& v) { return sin(v[0]) + cos(v[0]); }, {x}) < 1e-8);
  CHECK(error_of([](auto& v) { return softplus(v[0]); }, {x}) < 1e-8);
  using graft::kernels::Activation;
  for (auto kind : {Activation::relu, Activation::gelu, Activation::gelu_tanh, Activation::silu,
                    Activation::sigmoid, Activation::tanh, Activation::quick_gelu})
    CHECK(error_of([kind](auto& v) { return activation(kind, v[0]); }, {x}) < 1e-6);
  CHECK(error_of([](auto& v) { return gated(Activation::silu, v[0], v[1]); },
                 {x, random_parameter({3, 5}, 8)}) < 1e-7);
}

TEST_CASE("a gated product forms the gradients that are wanted and no other") {
  using graft::MemoryPool;
  const auto gate = random_parameter({64, 64}, 41).value(),
             up = random_parameter({64, 64}, 42).value(),
             weights = random_parameter({64, 64}, 43).value();
  struct Result {
    Tensor gate, up;
    std::int64_t bytes;
  };
  const auto run = [&](bool wants_gate, bool wants_up) {
    Tape tape;
    const auto g = wants_gate ? tape.leaf(gate) : tape.constant(gate);
    const auto u = wants_up ? tape.leaf(up) : tape.constant(up);
    const auto y = gated(graft::kernels::Activation::silu, g, u);
    MemoryPool::global().reset_peak();
    const auto before = MemoryPool::global().stats().bytes_in_use;
    tape.backward(y, weights);
    return Result{g.grad(), u.grad(), MemoryPool::global().stats().peak_bytes_in_use - before};
  };
  const auto both = run(true, true), one = run(true, false), other = run(false, true);
  CHECK(std::ranges::equal(one.gate, both.gate));
  CHECK(std::ranges::equal(other.up, both.up));
  CHECK_FALSE(one.up);
  CHECK_FALSE(other.gate);
  CHECK(one.bytes < both.bytes);
  CHECK(other.bytes < both.bytes);
}

TEST_CASE("moving elements moves their gradients back") {
  const auto x = random_parameter({3, 4, 2}, 9), y = random_parameter({3, 1, 2}, 10);
  CHECK(error_of([](auto& v) { return permute(v[0], {2, 0, 1}); }, {x}) < 1e-9);
  CHECK(error_of([](auto& v) { return transpose(v[0]); }, {x}) < 1e-9);
  CHECK(error_of([](auto& v) { return slice(v[0], 1, 1, 2); }, {x}) < 1e-9);
  CHECK(error_of(
            [](auto& v) {
              return concat_along(1, std::vector<Var>{v[0], v[1], v[0]});
            },
            {x, y}) < 1e-9);
  CHECK(error_of([](auto& v) { return broadcast_to(v[0], {3, 5, 2}); }, {y}) < 1e-9);
  CHECK(error_of([](auto& v) { return gather_rows(v[0], std::vector<int>{2, 0, 2}); }, {x}) < 1e-9);
  CHECK(error_of(
            [](auto& v) {
              return take(v[0], std::vector<int>{5, 23, 5, 0}, {2, 2});
            },
            {x}) < 1e-9);
  CHECK(error_of(
            [](auto& v) {
              return scatter(v[0], std::vector<int>{1, 1, 3, 8, 0, 2}, {3, 3});
            },
            {y}) < 1e-9);
}

TEST_CASE("a permutation puts each axis where the order says") {
  Tape tape;
  auto t = Tensor::empty({2, 3, 4});
  for (Index i = 0; i < t.size(); ++i) t[i] = static_cast<double>(i);
  const auto p = permute(tape.constant(t), {2, 0, 1}).value();
  CHECK(p.shape() == Shape{4, 2, 3});
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 3; ++j)
      for (Index k = 0; k < 4; ++k) CHECK(p[(k * 2 + i) * 3 + j] == t[(i * 3 + j) * 4 + k]);
}

TEST_CASE("sums, means, norms and softmax have the gradients of their formulas") {
  const auto x = random_parameter({3, 4, 2}, 11);
  CHECK(error_of([](auto& v) { return sum(v[0]); }, {x}) < 1e-9);
  CHECK(error_of([](auto& v) { return mean(v[0]); }, {x}) < 1e-9);
  for (int axis : {0, 1, 2})
    CHECK(error_of([axis](auto& v) { return sum_axis(v[0], axis); }, {x}) < 1e-9);
  CHECK(error_of([](auto& v) { return mean_axis(v[0], 1, true); }, {x}) < 1e-9);
  CHECK(error_of([](auto& v) { return norm_last(v[0]); }, {x}) < 1e-8);
  CHECK(error_of([](auto& v) { return norm(v[0]); }, {x}) < 1e-8);
  CHECK(error_of([](auto& v) { return softmax(v[0]); }, {x}) < 1e-8);
  CHECK(error_of([](auto& v) { return log_sum_exp(v[0]); }, {x}) < 1e-8);
}

TEST_CASE("products of matrices and of stacks have the right gradients in every transposition") {
  for (bool ta : {false, true})
    for (bool tb : {false, true}) {
      const auto a = random_parameter(ta ? Shape{5, 3} : Shape{3, 5}, 12);
      const auto b = random_parameter(tb ? Shape{4, 5} : Shape{5, 4}, 13);
      const auto sa = random_parameter(ta ? Shape{2, 5, 3} : Shape{2, 3, 5}, 14);
      const auto sb = random_parameter(tb ? Shape{2, 4, 5} : Shape{2, 5, 4}, 15);
      const auto f = [=](auto& v) {
        return matmul(v[0], v[1], ta ? Transpose::yes : Transpose::no,
                      tb ? Transpose::yes : Transpose::no);
      };
      CHECK(error_of(f, {a, b}) < 1e-8);
      CHECK(error_of(f, {sa, sb}) < 1e-8);
      if (!ta) CHECK(error_of(f, {sa, b}) < 1e-8);
    }
  CHECK_THROWS_WITH(error_of([](auto& v) { return matmul(v[0], v[1]); },
                             {random_parameter({2, 3}, 1), random_parameter({4, 2}, 1)}),
                    Catch::Contains("[2, 3]") && Catch::Contains("[4, 2]"));
}

TEST_CASE("norms have the right gradients for input, weight and bias") {
  const auto x = random_parameter({4, 6}, 16), w = random_parameter({6}, 17),
             b = random_parameter({6}, 18);
  CHECK(error_of([](auto& v) { return rms_norm(v[0], v[1], 1e-5); }, {x, w}) < 1e-7);
  CHECK(error_of([](auto& v) { return rms_norm(v[0], v[1], 1e-5, 1.0); }, {x, w}) < 1e-7);
  CHECK(error_of([](auto& v) { return layer_norm(v[0], v[1], v[2], 1e-5); }, {x, w, b}) < 1e-7);
}

TEST_CASE("a rotation keeps lengths and its gradient is the rotation back") {
  const auto x = random_parameter({3, 8}, 19);
  auto cos = Tensor::empty({3, 2}), sin = Tensor::empty({3, 2});
  for (Index i = 0; i < 6; ++i) {
    cos[i] = std::cos(0.3 * static_cast<double>(i));
    sin[i] = std::sin(0.3 * static_cast<double>(i));
  }
  CHECK(error_of([&](auto& v) { return rotary(v[0], 2, cos, sin); }, {x}) < 1e-9);
  Tape tape;
  const auto y = rotary(tape.constant(x.value()), 2, cos, sin).value();
  double before = 0, after = 0;
  for (Index i = 0; i < y.size(); ++i) {
    before += x.value()[i] * x.value()[i];
    after += y[i] * y[i];
  }
  CHECK(after == Approx(before));
}

TEST_CASE("the inverse has the gradient of its formula") {
  auto a = random_parameter({2, 3, 3}, 20);
  for (Index s = 0; s < 2; ++s)
    for (Index i = 0; i < 3; ++i) a.value()[s * 9 + i * 4] += 4;
  CHECK(error_of([](auto& v) { return inverse(v[0]); }, {a}) < 1e-7);
}

TEST_CASE("cross-entropy leaves ignored labels out and has the right gradient") {
  const auto x = random_parameter({4, 5}, 21);
  const std::vector<std::int64_t> labels{2, -100, 0, 4};
  CHECK(error_of([&](auto& v) { return cross_entropy(v[0], labels); }, {x}) < 1e-8);
  Tape tape;
  double expected = 0;
  for (Index r : {0, 2, 3}) {
    double total = 0;
    for (Index j = 0; j < 5; ++j) total += std::exp(x.value()(r, j));
    expected += std::log(total) - x.value()(r, labels[static_cast<std::size_t>(r)]);
  }
  CHECK(cross_entropy(tape.constant(x.value()), labels).item() == Approx(expected / 3));
  const std::vector<std::int64_t> bad{2, 5, 0, 4};
  CHECK_THROWS_WITH(cross_entropy(tape.constant(x.value()), bad), Catch::Contains("label 5"));
}

TEST_CASE("binary cross-entropy has its value and the gradient of its formula") {
  const auto targets = Tensor::from({1, 0, 0.25, 1, 0, 1}, {3, 2});
  const auto x = random_parameter({3, 2}, 91);
  CHECK(error_of([&](auto& v) { return binary_cross_entropy(v[0], targets); }, {x}) < 1e-8);
  double expected = 0;
  for (Index i = 0; i < 6; ++i) {
    const double p = 1 / (1 + std::exp(-x.value()[i]));
    expected -= targets[i] * std::log(p) + (1 - targets[i]) * std::log(1 - p);
  }
  Tape tape;
  CHECK(binary_cross_entropy(tape.constant(x.value()), targets).item() == Approx(expected / 6));
  const auto far = tape.constant(Tensor::from({-900, 900}, {2}));
  CHECK(binary_cross_entropy(far, Tensor::from({1, 1}, {2})).item() == Approx(450));
  CHECK_THROWS_AS(binary_cross_entropy(far, targets), graft::ShapeError);
}

TEST_CASE("the divergence of two distributions has its value, its gradient and rows that count") {
  const auto p = random_parameter({3, 4}, 21), q = random_parameter({3, 4}, 22);
  const std::vector<double> some{1, 0, 1};
  for (const auto& weights : {std::vector<double>{}, some})
    CHECK(error_of([&](auto& v) { return kl_divergence(v[0], v[1], weights); }, {p, q}) < 1e-8);
  Tape tape;
  const auto a = tape.constant(p.value()), b = tape.constant(q.value());
  const auto x = softmax(a).value(), y = softmax(b).value();
  double expected = 0;
  for (const Index r : {0, 2})
    for (Index j = 0; j < 4; ++j) expected += x(r, j) * std::log(x(r, j) / y(r, j)) / 2;
  CHECK(kl_divergence(a, b, some).item() == Approx(expected));
  CHECK_THROWS_AS(kl_divergence(a, b, std::vector<double>{1}), graft::ShapeError);
}

TEST_CASE("mean squared error has the gradient of its formula") {
  const auto a = random_parameter({3, 2}, 22), b = random_parameter({3, 2}, 23);
  CHECK(error_of([](auto& v) { return mse(v[0], v[1]); }, {a, b}) < 1e-8);
}
