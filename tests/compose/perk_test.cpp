#include "graft/compose/perk.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using Wide = graft::BasicTensor<double>;
using Tape = graft::BasicTape<double>;
using Var = graft::BasicVar<double>;
using Parameter = graft::BasicParameter<double>;

namespace {

/// Two tokens' logits of a small bilinear model, and weights of tokens.
struct Toy {
  Parameter a{checks::random_tensor<double>({2, 3}, 1)},
      b{checks::random_tensor<double>({2, 4}, 2)};
  graft::StandaloneInit<double> init{3};
  graft::BasicTokenWeighting<double> weighting{3, init.context(), 2};
  Wide context = checks::random_tensor<double>({5, 3}, 4),
       query = checks::random_tensor<double>({2, 3}, 5);

  Var logits(Tape& tape, const Wide& x) const {
    return matmul(tanh(matmul(tape.constant(x), tape.parameter(a), graft::Transpose::no,
                              graft::Transpose::yes)),
                  tape.parameter(b));
  }
  Var inner(Tape& tape) const {
    const std::vector<std::int64_t> labels{0, 3, -100, 1, 2};
    return graft::weighted_cross_entropy(logits(tape, context), weighting(tape.constant(context)),
                                         labels);
  }
  Var outer(Tape& tape) const {
    const std::vector<std::int64_t> labels{1, 3};
    return cross_entropy(logits(tape, query), labels);
  }
  graft::BasicPerk<double> perk(Index truncated) const {
    return graft::BasicPerk<double>(
        {a, b}, {.inner_steps = 3, .truncated = truncated, .inner_eps = 1e-3, .inner_lr = 0.2},
        weighting.parameters());
  }
};

}  // namespace

TEST_CASE("PERK: the whole outer derivative, against differences of the adapted loss") {
  Toy toy;
  for (const auto& p : toy.weighting.parameters())
    p.assign(checks::random_tensor<double>(p.shape(), 9, 0.7));
  const auto perk = toy.perk(0);
  const auto inner = [&](Tape& tape) { return toy.inner(tape); };
  const auto outer = [&](Tape& tape) { return toy.outer(tape); };
  std::vector<Parameter> trained{toy.a, toy.b, perk.rates()[0], perk.rates()[1]};
  for (const auto& p : toy.weighting.parameters()) trained.push_back(p);
  const auto adapted = [&] {
    const auto start = perk.adapt(inner);
    Tape tape({.gradients = false});
    const double loss = toy.outer(tape).item();
    perk.restore(start);
    return loss;
  };
  const auto before = toy.a.value().clone();
  CHECK(perk.outer(inner, outer) == Approx(adapted()));
  CHECK(std::equal(before.begin(), before.end(), toy.a.value().begin()));
  for (const auto& p : trained) {
    REQUIRE(p.grad());
    for (Index i = 0; i < p.size(); ++i) {
      double& element = p.value()[i];
      const double old = element, h = 1e-5;
      element = old + h;
      const double up = adapted();
      element = old - h;
      const double slope = (up - adapted()) / (2 * h);
      element = old;
      CHECK(p.grad()[i] == Approx(slope).epsilon(1e-4).margin(1e-7));
    }
  }
}

TEST_CASE("PERK: with every step truncated, φ_0 gets the gradient at φ_N") {
  Toy toy;
  const auto perk = toy.perk(3);
  const auto inner = [&](Tape& tape) { return toy.inner(tape); };
  const auto outer = [&](Tape& tape) { return toy.outer(tape); };
  toy.a.mutable_grad() = Wide::ones(toy.a.shape());  // gradients add up
  perk.outer(inner, outer);
  const auto found = toy.a.grad().clone();
  CHECK_FALSE(toy.weighting.parameters()[0].grad());
  toy.a.zero_grad();
  const auto start = perk.adapt(inner);
  CHECK_FALSE(toy.a.grad());
  Tape tape;
  tape.backward(toy.outer(tape));
  for (Index i = 0; i < found.size(); ++i) CHECK(found[i] == Approx(1 + toy.a.grad()[i]));
  perk.restore(start);
}

TEST_CASE("PERK: weights of fresh tokens, chunks of a context, settings") {
  Toy toy;
  Tape tape;
  const auto weights = toy.weighting(tape.constant(toy.context));
  for (const double w : weights.value()) CHECK(w == Approx(std::log(2.0) / 3));
  using Chunks = std::vector<std::pair<Index, Index>>;
  CHECK(graft::context_chunks(7, 3) == Chunks{{0, 3}, {3, 3}, {6, 1}});
  CHECK(graft::context_chunks(0, 3).empty());
  CHECK_THROWS_AS(toy.perk(-1), graft::ValueError);
  CHECK_THROWS_AS(graft::BasicPerk<double>({toy.a}, {.inner_betas = {0.9}}), graft::ValueError);
  const std::vector<std::int64_t> labels{0, 1};
  CHECK_THROWS_AS(graft::weighted_cross_entropy(tape.constant(Wide::zeros({2, 3})),
                                                tape.constant(Wide::zeros({3})), labels),
                  graft::ShapeError);
}
