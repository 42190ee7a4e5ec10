#include "graft/optim/spsa.hpp"

#include <catch2/catch.hpp>

#include "graft/tensor/tensor.hpp"

using graft::Index;

TEST_CASE(
    "SPSA: the mean of many estimates is the gradient of a quadratic; two losses a direction") {
  graft::BasicParameter<double> p(
      graft::BasicTensor<double>::from(std::vector<double>{1, -2, 0.5}, {3}));
  Index calls = 0;
  const auto loss = [&] {
    ++calls;
    const auto& v = p.value();
    return v[0] * v[0] + 3 * v[1] * v[1] + v[0] * v[2];
  };
  graft::BasicSpsa<double> optimizer({p}, {.a = 0, .num_estimates = 40000, .rademacher = true}, 3);
  const auto g = optimizer.step(loss);
  CHECK(calls == 80000);
  CHECK(g[0] == Approx(2.5).margin(0.3));
  CHECK(g[1] == Approx(-12).margin(0.3));
  CHECK(g[2] == Approx(1).margin(0.3));
  CHECK(p.value()[1] == -2);
}

TEST_CASE("SPSA goes downhill, with given directions as the formula says") {
  graft::BasicParameter<double> p(
      graft::BasicTensor<double>::from(std::vector<double>{1, -2}, {2}));
  const auto loss = [&] { return p.value()[0] * p.value()[0] + p.value()[1] * p.value()[1]; };
  graft::BasicSpsa<double> one({p}, {.a = 0.1, .c = 0.01, .momentum = 0.5}, 1);
  // (L(φ + cΔ) − L(φ − cΔ)) / 2c = 2 φ · Δ
  const auto g = one.step(loss, {{1, 0.5}});
  CHECK(g[0] == Approx(0).margin(1e-9));
  const auto h = one.step(loss, {{1, -0.5}});
  const double rate = 0.1 / std::pow(3.0, 0.4);
  CHECK(h[0] == Approx(4));
  CHECK(p.value()[0] == Approx(1 - rate * 1.5 * 4));
  graft::BasicSpsa<double> more({p}, {.a = 0.05}, 2);
  const double before = loss();
  for (int i = 0; i < 60; ++i) more.step(loss);
  CHECK(loss() < 0.1 * before);
  CHECK_THROWS_AS(more.step(loss, {{1}}), graft::ShapeError);
  CHECK_THROWS_AS(graft::BasicSpsa<double>({p}, {.num_estimates = 0}), graft::ValueError);
}
