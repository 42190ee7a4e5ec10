#include "graft/interop/memory.hpp"

#include <catch2/catch.hpp>
#include <vector>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/layers/any_linear.hpp"
#include "graft/optim/adamw.hpp"

namespace {

using Catch::Contains;
using graft::Index;
namespace interop = graft::interop;

std::vector<float> numbers(Index n, std::uint64_t seed) {
  std::vector<float> v(static_cast<std::size_t>(n));
  graft::TorchGenerator(seed).normal(v.data(), n);
  return v;
}

/// A layer of somebody else: knows nothing of graft but the views.
struct Circulant {
  std::vector<float> c;

  Index in_features() const { return static_cast<Index>(c.size()); }
  Index out_features() const { return static_cast<Index>(c.size()); }
  float weight(Index o, Index i) const {
    return c[static_cast<std::size_t>((o - i + in_features()) % in_features())];
  }
  void forward(graft::MatrixView<const float> x, graft::MatrixView<float> y) const {
    for (Index r = 0; r < x.rows(); ++r)
      for (Index o = 0; o < out_features(); ++o) {
        y(r, o) = 0;
        for (Index i = 0; i < in_features(); ++i) y(r, o) += x(r, i) * weight(o, i);
      }
  }
  void backward_input(graft::MatrixView<const float> dy, graft::MatrixView<float> dx) const {
    for (Index r = 0; r < dy.rows(); ++r)
      for (Index i = 0; i < in_features(); ++i)
        for (Index o = 0; o < out_features(); ++o) dx(r, i) += dy(r, o) * weight(o, i);
  }
};
static_assert(graft::FrozenLinear<Circulant> && !graft::DenseWeights<Circulant>);

}  // namespace

TEST_CASE("Pointers and spans become layers without a copy, whichever way round they are") {
  const Index out = 5, in = 7, gap = 10;
  const auto w = numbers(out * gap, 1);
  const auto wide = interop::out_by_in(w.data(), out, in, gap);
  CHECK(wide.weight().data() == w.data());
  CHECK(wide.in_features() == in);
  CHECK(wide.out_features() == out);
  const std::span<const float> whole(w);
  const auto exact = interop::out_by_in(whole, out, gap);
  CHECK(exact.weight().data() == w.data());

  // The same memory read as V: its layer computes with the transposed.
  const auto turned = interop::in_by_out(whole, out, gap);
  CHECK(turned.weight().data() == w.data());
  CHECK(turned.in_features() == out);
  CHECK(turned.out_features() == gap);
  const auto x = numbers(out, 2);
  std::vector<float> y(gap);
  turned.forward({x.data(), 1, out}, {y.data(), 1, gap});
  for (Index o = 0; o < gap; ++o) {
    float sum = 0;
    for (Index i = 0; i < out; ++i)
      sum += x[static_cast<std::size_t>(i)] * w[static_cast<std::size_t>(i * gap + o)];
    CHECK(y[static_cast<std::size_t>(o)] == Approx(sum).margin(1e-5));
  }
}

TEST_CASE("Sizes that do not fit the memory or each other are refused") {
  auto w = numbers(35, 1);
  const std::span<float> span(w);
  CHECK_THROWS_WITH(interop::out_by_in(span, 5, 8), Contains("35 elements, expected 5 x 8"));
  CHECK_THROWS_WITH(interop::in_by_out(span, 5, 6), Contains("35 elements, expected 5 x 6"));
  CHECK_THROWS_WITH(interop::out_by_in(w.data(), 5, 7, 5), Contains("row stride 5"));
  // A weight taken the wrong way round is noticed at the first input, or by its bias.
  const auto wrong = interop::in_by_out(span, 5, 7);
  graft::Tape tape;
  CHECK_THROWS_WITH(graft::linear(wrong, tape.constant(graft::Tensor::zeros({2, 7}))),
                    Contains("expected [..., 5]"));
  CHECK_THROWS_WITH(interop::in_by_out(span, 5, 7, graft::Tensor::zeros({5})),
                    Contains("expected [7]"));
}

TEST_CASE("A layer class of one's own is wrapped, trained, merged, and runs behind AnyLinear") {
  const Circulant own{numbers(6, 3)};
  graft::Adapted layer(own, graft::LoRA({.rank = 2, .alpha = 2}, own));
  graft::AdamW optimizer(layer.parameters(), {.learning_rate = 3e-2});
  const auto x = numbers(32 * 6, 4), y = numbers(32 * 6, 5);
  const auto loss_of = [&](graft::Tape& tape, const auto& f) {
    const auto input = tape.leaf(graft::Tensor::from(x, {32, 6}));
    return graft::mse(f(input), tape.constant(graft::Tensor::from(y, {32, 6})));
  };
  float first = 0, last = 0;
  for (int step = 0; step < 60; ++step) {
    graft::Tape tape;
    const auto loss = loss_of(tape, layer);
    last = loss.item();
    if (step == 0) first = last;
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
  }
  CHECK(last < 0.9F * first);

  const auto merged = layer.merge();
  graft::Tape tape({.gradients = false});
  const float unmerged = loss_of(tape, layer).item();
  const auto by_merged = [&](const graft::Var& v) { return graft::linear(merged, v); };
  CHECK(loss_of(tape, by_merged).item() == Approx(unmerged).epsilon(1e-5));
  const graft::AnyLinear any(own);
  const graft::Adapted erased(any, layer.adapter());
  CHECK(loss_of(tape, erased).item() == Approx(unmerged).epsilon(1e-5));
  CHECK(any.as<Circulant>() != nullptr);
}

TEST_CASE("The gradient of an input is a tensor over memory of one's own type") {
  const auto w = numbers(12, 6);
  const auto layer = interop::out_by_in(std::span<const float>(w), 3, 4);
  graft::Tape tape;
  const auto x = tape.leaf(graft::Tensor::ones({1, 4}));
  tape.backward(graft::sum(graft::linear(layer, x)));
  const auto dx = x.grad().span();
  for (std::size_t i = 0; i < 4; ++i) CHECK(dx[i] == Approx(w[i] + w[4 + i] + w[8 + i]));
}
