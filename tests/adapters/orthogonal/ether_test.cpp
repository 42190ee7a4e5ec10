#include "graft/adapters/orthogonal/ether.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicETHER;
using graft::BasicETHERPlus;
using graft::ETHER;
using graft::ETHERConfig;
using graft::ETHERPlus;
using graft::ETHERPlusConfig;
using graft::Index;

TEST_CASE("ETHER reflects one side, differentiates and merges") {
  for (const auto& config :
       {ETHERConfig{}, ETHERConfig{.n_blocks = 3}, ETHERConfig{.side = "output"},
        ETHERConfig{.n_blocks = 5, .side = "output"}}) {
    CHECK(checks::gradient_error<BasicETHER<double>>(config) < 1e-7);
    CHECK(checks::merge_error<ETHER>(config) < 1e-5);
    CHECK(checks::trained<ETHER>(config) == (config.side == "input" ? 12 : 10));
    // W H and H W: a second reflection undoes the first, and W Wᵀ (or WᵀW) stays.
    const auto layer = checks::random_layer<double>(10, 12, 1);
    const auto method = checks::make<BasicETHER<double>>(config, checks::site_of(layer));
    const auto once = merge_linear(layer, method), twice = merge_linear(once, method);
    CHECK(checks::relative_error(once.dense_weight(), layer.dense_weight()) > 0.1);
    CHECK(checks::relative_error(twice.dense_weight(), layer.dense_weight()) < 1e-13);
    CHECK(checks::relative_error(once.bias(), layer.bias()) == 0);
  }
}

TEST_CASE("ETHER's reflection lies 2 sqrt(n) from the identity for every vector") {
  const graft::BasicDenseLinear<double> one(graft::BasicTensor<double>::identity(12));
  for (const Index n : {1, 2, 6}) {
    const auto method = checks::make<BasicETHER<double>>({.n_blocks = n}, checks::site_of(one));
    const auto h = merge_linear(one, method).dense_weight();
    double square = 0;
    for (Index i = 0; i < 12; ++i)
      for (Index j = 0; j < 12; ++j) {
        const double d = h(i, j) - (i == j ? 1 : 0);
        square += d * d;
      }
    CHECK(square == Approx(4.0 * static_cast<double>(n)));
  }
}

TEST_CASE("ETHER+ begins as the identity, differentiates and merges") {
  for (const auto& config :
       {ETHERPlusConfig{}, ETHERPlusConfig{.n_blocks = 2}, ETHERPlusConfig{.sides = "input"},
        ETHERPlusConfig{.n_blocks = 4, .sides = "input"}}) {
    CHECK(checks::change_at_init<BasicETHERPlus<double>>(config) < 1e-14);
    CHECK(checks::gradient_error<BasicETHERPlus<double>>(config) < 1e-7);
    CHECK(checks::merge_error<ETHERPlus>(config) < 1e-5);
    CHECK(checks::trained<ETHERPlus>(config) == (config.sides == "both" ? 2 * (10 + 12) : 2 * 12));
  }
}

TEST_CASE("ETHER refuses blocks that do not fit and sides that there are not") {
  CHECK_THROWS_WITH(checks::trained<ETHER>({.n_blocks = 5}), Catch::Contains("does not divide 12"));
  CHECK_THROWS_WITH(checks::trained<ETHER>({.side = "left"}), Catch::Contains("left"));
  CHECK_THROWS_WITH(checks::trained<ETHERPlus>({.sides = "output"}), Catch::Contains("output"));
  CHECK_THROWS_WITH(checks::trained<ETHERPlus>({.n_blocks = 3}),
                    Catch::Contains("does not divide 10"));
}
