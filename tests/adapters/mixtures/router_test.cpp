#include "graft/adapters/mixtures/router.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/mixtures/mola.hpp"

using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

namespace {

graft::Routing<double> routing(BasicTape<double>& tape, const std::vector<double>& p, Index tokens,
                               Index k, bool renormalise) {
  const Index experts = std::ssize(p) / tokens;
  return graft::route(tape.constant(BasicTensor<double>::from(p, {tokens, experts})), k,
                      renormalise);
}

}  // namespace

TEST_CASE("a router keeps the likeliest experts, the first of equal ones") {
  BasicTape<double> tape;
  const std::vector<double> p = {0.1, 0.5, 0.4, 0.25, 0.5, 0.25};
  auto r = routing(tape, p, 2, 2, false);
  CHECK(r.chosen == std::vector<std::int32_t>{1, 2, 1, 0});
  const auto w = r.weights.value();
  CHECK((w[0] == 0 && w[1] == 0.5 && w[2] == 0.4 && w[3] == 0.25 && w[4] == 0.5 && w[5] == 0));
  r = routing(tape, p, 2, 2, true);
  CHECK(r.weights.value()[1] == Approx(0.5 / 0.9));
  CHECK(r.weights.value()[3] == Approx(0.25 / 0.75));
  r = routing(tape, p, 2, 7, true);
  CHECK(r.k == 3);
  CHECK(r.weights.value()[0] == 0.1);
}

TEST_CASE("the balance loss is k under uniform load and does not see padding") {
  BasicTape<double> tape;
  const std::vector<double> even = {0.4, 0.2, 0.2, 0.2, 0.2, 0.4, 0.2, 0.2,
                                    0.2, 0.2, 0.4, 0.2, 0.2, 0.2, 0.2, 0.4};
  CHECK(graft::balance_loss(routing(tape, even, 4, 1, true), {}).item() == Approx(1));
  const std::vector<double> one = {0.7, 0.3, 0.6, 0.4, 0.1, 0.9};
  const auto r = routing(tape, one, 3, 1, true);
  CHECK(graft::balance_loss(r, {1, 1, 0}).item() == Approx(2 * 0.65));
  CHECK(graft::balance_loss(r, {}).item() == Approx(2 * (2 * 1.4 + 1.6) / 9));
  graft::ForwardContext context;
  context.batch = 2;
  context.token_mask = {1, 0, 1, 1};
  CHECK(graft::counted_rows(&context, 4) == std::vector<unsigned char>{1, 0, 1, 1});
  CHECK(graft::counted_rows(&context, 6) == std::vector<unsigned char>{0, 1, 0, 0, 1, 1});
  CHECK(graft::counted_rows(&context, 2).empty());
}

TEST_CASE("a router's loss is asked for on the tape of its pass") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto method =
      checks::make<graft::BasicMoLA<double>>({.num_experts = 3}, checks::site_of(layer));
  const auto x = checks::random_tensor<double>({4, 12}, 2);
  BasicTape<double> one, other;
  method.apply(layer, one.constant(x));
  CHECK_THROWS_WITH(method.auxiliary_loss(other), Catch::Contains("recomputed"));
  method.apply(layer, one.constant(x));
  CHECK(method.auxiliary_loss(one).item() > 0);
  CHECK_FALSE(method.auxiliary_loss(one));
}
