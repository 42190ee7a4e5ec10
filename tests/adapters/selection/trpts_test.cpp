#include "graft/adapters/selection/trpts.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::Index;
using graft::Tensor;

TEST_CASE("TR-PTS gives every neuron one input at least, and more where more of the best are") {
  const std::vector<Tensor> fisher{Tensor::from({9, 8, 7, 1, 1, 1}, {2, 3}),
                                   Tensor::from({6, 1, 1, 1}, {2, 2}),
                                   Tensor::from({0, 0, 0, 0, 0}, {1, 5})};
  // ⌊30 % of 15⌋ = 4 places: three in the first matrix, one in the second.
  const auto budgets = graft::selection::trpts_budgets(fisher, 30, 1);
  CHECK(budgets.share == std::vector<double>{0.75, 0.25, 0});
  CHECK(budgets.connections == std::vector<Index>{3, 1, 1});
  CHECK(graft::selection::trpts_places(fisher[1], 1) == graft::selection::Places{0, 2});
  CHECK(graft::selection::trpts_places(fisher[0], 2) == graft::selection::Places{0, 1, 3, 4});
}

TEST_CASE("tokens that are dropped become one, weighted by attention") {
  graft::BasicTape<double> tape;
  const auto x = tape.constant(checks::random_tensor<double>({2, 6, 3}, 1));
  const auto a = tape.constant(
      BasicTensor<double>::from({0.1, 0.5, 0.2, 0.05, 0.15, 0.3, 0.3, 0.1, 0.1, 0.2}, {2, 5}));
  const auto y = graft::selection::fuse_tokens(x, a, 0.6).value();
  REQUIRE(y.shape() == graft::Shape{2, 5, 3});
  const auto row = [&](Index t) { return x.value().data() + t * 3; };
  for (Index j = 0; j < 3; ++j) {
    CHECK(y[j] == row(0)[j]);
    CHECK(y[3 + j] == row(2)[j]);  // the first row keeps 1, 2 and 4, in their order
    CHECK(y[6 + j] == row(3)[j]);
    CHECK(y[9 + j] == row(5)[j]);
    CHECK(y[12 + j] == Approx((0.1 * row(1)[j] + 0.05 * row(4)[j]) / 0.15));
    CHECK(y[15 + 3 + j] == row(6 + 1)[j]);  // the second one 0, 1 and 4
    CHECK(y[15 + 12 + j] == Approx((row(6 + 3)[j] + row(6 + 4)[j]) / 2));
  }
  CHECK(graft::selection::fuse_tokens(x, a, 1.0).value().data() == x.value().data());
  CHECK_THROWS_AS(
      graft::selection::fuse_tokens(x, tape.constant(BasicTensor<double>::zeros({2, 6})), 0.5),
      graft::ShapeError);
}

TEST_CASE("gradients flow through the tokens and through the weights that fuse them") {
  const std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(checks::random_tensor<double>({2, 6, 3}, 2)),
      graft::BasicParameter<double>(BasicTensor<double>::from(
          {0.1, 0.5, 0.2, 0.05, 0.15, 0.3, 0.34, 0.1, 0.13, 0.2}, {2, 5}))};
  const auto weights = checks::random_tensor<double>({2, 4, 3}, 3);
  const auto error =
      graft::gradient_check(
          [&](graft::BasicTape<double>& tape) {
            return sum(mul(graft::selection::fuse_tokens(tape.parameter(parameters[0]),
                                                         tape.parameter(parameters[1]), 0.4),
                           tape.constant(weights)));
          },
          parameters)
          .relative_error;
  CHECK(error < 1e-7);
}

TEST_CASE("TR-PTS takes its token layers as a list or as their number") {
  graft::TRPTSConfig config;
  config.validate();
  config.token_layers = graft::ConfigValue::List{graft::ConfigValue(Index{2}), Index{5}};
  CHECK(config.listed_layers() == std::vector<Index>{2, 5});
  config.token_layers = "all";
  CHECK_THROWS_AS(config.validate(), graft::ValueError);
  config.token_layers = Index{3};
  config.keep_rate = 0;
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("keep_rate 0"));
}
