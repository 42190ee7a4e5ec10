#include "graft/autograd/tape.hpp"

#include <catch2/catch.hpp>
#include <stdexcept>

#include "graft/autograd/checkpoint.hpp"
#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/autograd/ops/norm.hpp"
#include "graft/autograd/ops/reduce.hpp"

using graft::Index;
using graft::Parameter;
using graft::Tape;
using graft::Tensor;
using graft::Var;

TEST_CASE("a gradient reaches leaves and parameters and adds up over uses") {
  Tape tape;
  const Parameter p(Tensor::from({2, 3}, {2}));
  const auto x = tape.leaf(Tensor::from({5, 7}, {2}));
  const auto w = tape.parameter(p);
  tape.backward(sum(mul(x, w) + w));
  CHECK(x.grad()[0] == 2);
  CHECK(x.grad()[1] == 3);
  CHECK(p.grad()[0] == 6);
  CHECK(p.grad()[1] == 8);
}

TEST_CASE("a parameter gathers gradients over several backward passes until they are dropped") {
  const Parameter p(Tensor::from({2}, {1}));
  for (int i = 0; i < 3; ++i) {
    Tape tape;
    tape.backward(sum(scale(tape.parameter(p), 4)));
  }
  CHECK(p.grad()[0] == 12);
  p.zero_grad();
  CHECK_FALSE(static_cast<bool>(p.grad()));
}

TEST_CASE("frozen parameters and constants get no gradient and record nothing") {
  const Parameter frozen(Tensor::from({2}, {1}), false);
  Tape tape;
  const auto y = mul(tape.parameter(frozen), tape.constant(Tensor::from({3}, {1})));
  CHECK_FALSE(y.requires_grad());
  CHECK_THROWS_AS(tape.backward(y), graft::ValueError);
}

TEST_CASE("a tape without gradients records nothing even for parameters") {
  const Parameter p(Tensor::from({2}, {1}));
  Tape tape({.gradients = false});
  CHECK_FALSE(tape.parameter(p).requires_grad());
}

TEST_CASE("a backward pass wants a single number unless a gradient is given") {
  const Parameter p(Tensor::from({1, 2}, {2}));
  {
    Tape tape;
    CHECK_THROWS_WITH(tape.backward(tape.parameter(p)), Catch::Contains("[2]"));
  }
  Tape tape;
  const auto y = scale(tape.parameter(p), 2);
  tape.backward(y, Tensor::from({1, 10}, {2}));
  CHECK(p.grad()[1] == 20);
}

TEST_CASE("a value of another tape is refused") {
  const Parameter p(Tensor::from({1}, {1}));
  Tape a, b;
  CHECK_THROWS_AS(add(a.parameter(p), b.parameter(p)), graft::ValueError);
  CHECK_THROWS_AS(b.backward(a.parameter(p)), graft::ValueError);
}

TEST_CASE("an exception in an operation's backward leaves the tape empty and usable") {
  const Parameter p(Tensor::from({1}, {1}));
  Tape tape;
  auto fails = tape.record(Tensor::from({1}, {1}), true,
                           [](const Tensor&) { throw std::runtime_error("broken operation"); });
  CHECK_THROWS_WITH(tape.backward(add(fails, tape.parameter(p))), Catch::Contains("broken"));
  p.zero_grad();
  tape.backward(scale(tape.parameter(p), 3));
  CHECK(p.grad()[0] == 3);
}

TEST_CASE("shared gradients are not written twice: a sum gives both sides their own") {
  const Parameter a(Tensor::from({1}, {1})), b(Tensor::from({1}, {1}));
  Tape tape;
  const auto va = tape.parameter(a), vb = tape.parameter(b);
  const auto s = add(va, vb);
  tape.backward(add(s, scale(va, 10)));
  CHECK(a.grad()[0] == 11);
  CHECK(b.grad()[0] == 1);
}

TEST_CASE("a step in steady state takes no memory from the system") {
  const Parameter p(Tensor::full({64, 64}, 0.5F));
  const auto step = [&] {
    Tape tape;
    const auto x = tape.constant(Tensor::full({32, 64}, 0.25F));
    tape.backward(mean(square(tanh(matmul(x, tape.parameter(p))))));
    p.zero_grad();
  };
  step();
  step();
  const auto before = graft::MemoryPool::global().stats().system_allocations;
  for (int i = 0; i < 5; ++i) step();
  CHECK(graft::MemoryPool::global().stats().system_allocations == before);
}

TEST_CASE("buffers are freed while the backward pass runs: its peak does not grow with depth") {
  const Parameter p(Tensor::full({64, 64}, 0.01F));
  const auto peak = [&](int depth) {
    Tape tape;
    auto x = tape.parameter(p);
    for (int i = 0; i < depth; ++i) x = scale(x, 1.5);
    const auto loss = sum(x);
    x = {};
    graft::MemoryPool::global().reset_peak();
    const auto before = graft::MemoryPool::global().stats().bytes_in_use;
    tape.backward(loss);
    p.zero_grad();
    return graft::MemoryPool::global().stats().peak_bytes_in_use - before;
  };
  CHECK(peak(40) <= peak(4) + 4096);
}

TEST_CASE("a checkpoint gives the bits of the plain computation and keeps less") {
  const Parameter w(Tensor::full({48, 48}, 0.03F));
  const auto f = [&](const Var& x) {
    auto h = x;
    for (int i = 0; i < 4; ++i) h = tanh(matmul(h, x.tape().parameter(w)));
    return dropout(h, 0.25);
  };
  Tensor gradient[2], value[2];
  std::int64_t kept[2];
  for (int mode = 0; mode < 2; ++mode) {
    Tape tape({.seed = 5});
    const auto x = tape.leaf(Tensor::full({96, 48}, 0.5F));
    const auto before = graft::MemoryPool::global().stats().bytes_in_use;
    const auto y = mode == 0 ? f(x) : checkpoint(f, x);
    kept[mode] = graft::MemoryPool::global().stats().bytes_in_use - before;
    value[mode] = y.value();
    tape.backward(sum(square(y)));
    gradient[mode] = w.grad();
    w.zero_grad();
  }
  for (Index i = 0; i < value[0].size(); ++i) REQUIRE(value[0][i] == value[1][i]);
  for (Index i = 0; i < gradient[0].size(); ++i) REQUIRE(gradient[0][i] == gradient[1][i]);
  CHECK(kept[1] * 2 < kept[0]);
}

TEST_CASE("dropout zeroes its share, scales the rest and is off outside of training") {
  Tape tape({.seed = 3});
  const auto x = tape.constant(Tensor::full({10000}, 1));
  const auto y = dropout(x, 0.3).value();
  Index zeros = 0;
  for (float v : y) {
    if (v == 0)
      ++zeros;
    else
      CHECK(v == Approx(1 / 0.7));
  }
  CHECK(zeros > 2800);
  CHECK(zeros < 3200);
  Tape quiet({.training = false});
  CHECK(dropout(quiet.constant(Tensor::full({4}, 1)), 0.3).value()[0] == 1);
  Tape again({.seed = 3});
  const auto same = dropout(again.constant(Tensor::full({10000}, 1)), 0.3).value();
  for (Index i = 0; i < y.size(); ++i) REQUIRE(y[i] == same[i]);
  CHECK_THROWS_AS(dropout(x, 1.0), graft::ValueError);
}

TEST_CASE("a wrong gradient is found by the gradient check") {
  using graft::BasicParameter;
  using graft::BasicTape;
  using graft::BasicTensor;
  const BasicParameter<double> p(BasicTensor<double>::from({0.3, -0.7, 1.1}, {3}));
  const auto right = graft::gradient_check(
      [&](BasicTape<double>& tape) { return sum(exp(tape.parameter(p))); }, {p});
  CHECK(right.relative_error < 1e-8);
  const auto wrong = graft::gradient_check(
      [&](BasicTape<double>& tape) {
        return sum(unary(
            tape.parameter(p), [](double v) { return v * v; }, [](double v, double) { return v; }));
      },
      {p});
  CHECK(wrong.relative_error > 0.1);
}

TEST_CASE("values kept in bf16 take half the memory and change gradients by their rounding only") {
  const Index rows = 64, width = 96;
  auto start = Tensor::empty({rows, width});
  for (Index i = 0; i < start.size(); ++i)
    start[i] = 0.01F * static_cast<float>((i * 37) % 301) - 1.4F;
  struct Result {
    float value;
    Tensor gradient;
    std::int64_t bytes;
  };
  const auto run = [&](bool bf16, bool checkpointed) {
    Tape tape({.bf16_saved = bf16});
    const auto x = tape.leaf(start);
    const auto before = graft::MemoryPool::global().stats().bytes_in_use;
    const auto block = [](const Var& in) {
      const auto u = graft::scale(in, 1.1F), v = graft::scale(in, 0.7F);
      return graft::rms_norm(graft::gated(graft::kernels::Activation::silu, u, v), {}, 1e-5F);
    };
    auto y = x;
    for (int i = 0; i < 4; ++i) y = checkpointed ? graft::checkpoint(block, y) : block(y);
    const auto loss = sum(mul(y, tape.constant(start)));
    y = {};
    const auto kept = graft::MemoryPool::global().stats().bytes_in_use - before;
    tape.backward(loss);
    return Result{loss.item(), x.grad().clone(), kept};
  };
  for (bool checkpointed : {false, true}) {
    const auto exact = run(false, checkpointed), rounded = run(true, checkpointed);
    CHECK(rounded.value == exact.value);
    CHECK(static_cast<double>(rounded.bytes) < 0.75 * static_cast<double>(exact.bytes));
    double error = 0, size = 0;
    for (Index i = 0; i < start.size(); ++i) {
      error = std::max(error, std::abs(double{rounded.gradient[i]} - double{exact.gradient[i]}));
      size = std::max(size, std::abs(double{exact.gradient[i]}));
    }
    CHECK(error > 0);
    CHECK(error < 0.02 * size);
  }
}
