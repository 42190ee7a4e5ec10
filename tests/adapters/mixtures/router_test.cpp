#include "graft/adapters/mixtures/router.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/mixtures/mola.hpp"
#include "graft/adapters/mixtures/molora.hpp"
#include "graft/adapters/mixtures/sira.hpp"

using graft::BasicTape;
using graft::BasicTensor;
using graft::ConfigValue;
using graft::Index;

namespace {

/// Worst relative error of the gradients of the auxiliary loss.
template <class M>
double auxiliary_gradient_error(const typename M::Config& config) {
  const auto layer = checks::random_layer<double>(10, 12, 3);
  const auto method = checks::make<M>(config, checks::site_of(layer));
  checks::randomize(method);
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(checks::random_tensor<double>({7, 12}, 4))};
  for (auto& t : method.tensors()) parameters.push_back(t.parameter);
  return graft::gradient_check(
             [&](BasicTape<double>& tape) {
               method.apply(layer, tape.parameter(parameters[0]));
               return method.auxiliary_loss(tape);
             },
             parameters)
      .relative_error;
}

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

TEST_CASE("MoLA begins as the identity, counts, differentiates and does not merge") {
  using M = graft::BasicMoLA<double>;
  const graft::MoLAConfig config{.num_experts = 4, .rank = 3, .alpha = 6};
  CHECK(checks::change_at_init<M>(config) == 0);
  CHECK(checks::trained<graft::MoLA>(config) == 4 * 3 * 22 + 4 * 12);
  CHECK(checks::gradient_error<M>(config) < 1e-6);
  CHECK(auxiliary_gradient_error<M>({.num_experts = 4, .router_aux_loss_coef = 1}) < 1e-6);
  CHECK_THROWS_WITH(checks::merge_error<graft::MoLA>(config), Catch::Contains("token"));
}

TEST_CASE("an expert of MoLA that is alone is a LoRA") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto method = checks::make<graft::BasicMoLA<double>>(
      {.num_experts = 1, .rank = 3, .alpha = 6}, checks::site_of(layer));
  checks::randomize(method);
  const auto x = checks::random_tensor<double>({5, 12}, 2);
  const auto tensors = method.tensors();
  const auto a = tensors[0].parameter.value().reshape({3, 12}),
             b = tensors[1].parameter.value().reshape({10, 3});
  auto expected = checks::base_output(layer, x).clone();
  const auto delta =
      graft::detail::product(graft::detail::product(x, a, 1.0, false, true), b, 2.0, false, true);
  for (Index i = 0; i < expected.size(); ++i) expected[i] += delta[i];
  CHECK(checks::relative_error(checks::output(method, layer, x), expected) < 1e-14);
}

TEST_CASE("MoLA has the experts that its allocation gives a block") {
  CHECK(graft::expert_allocation("inverted_triangle", 8) ==
        std::vector<Index>{2, 2, 4, 4, 6, 6, 8, 8});
  CHECK(graft::expert_allocation("hourglass", 5) == std::vector<Index>{8, 8, 2, 2, 8});
  graft::MoLAConfig config;
  CHECK(config.experts_of(5, 12) == 4);
  CHECK(config.experts_of(-1, 0) == 2);
  config.num_experts = ConfigValue::List{3, 4};
  CHECK(config.experts_of(1, 2) == 4);
  CHECK_THROWS_WITH(config.experts_of(2, 3), Catch::Contains("block 2"));
  config.num_experts = "square";
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("square"));
  config.num_experts = 0;
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("num_experts 0"));
}

TEST_CASE("MoLoRA mixes all experts or the likeliest ones") {
  using M = graft::BasicMoLoRA<double>;
  const graft::MoLoRAConfig config{.num_experts = 4, .rank = 3};
  CHECK(checks::change_at_init<M>(config) == 0);
  CHECK(checks::trained<graft::MoLoRA>(config) == 4 * (3 * 22 + 12 + 1));
  CHECK(checks::gradient_error<M>(config) < 1e-6);
  CHECK(checks::gradient_error<M>({.num_experts = 4, .top_k = 2, .rank = 3}) < 1e-6);
  CHECK_THROWS_WITH(checks::merge_error<graft::MoLoRA>(config), Catch::Contains("token"));
  CHECK_THROWS_WITH(graft::MoLoRAConfig{.top_k = 0}.validate(), Catch::Contains("top_k 0"));
}

TEST_CASE("an expert of SiRA takes no more tokens than it has places for") {
  using M = graft::BasicSiRA<double>;
  graft::SiRAConfig config{.num_experts = 4, .top_k = 2, .rank = 3, .expert_dropout = 0};
  CHECK(checks::change_at_init<M>(config) == 0);
  CHECK(checks::trained<graft::SiRA>(config) == 4 * (3 * 22 + 12));
  CHECK(checks::gradient_error<M>(config) < 1e-6);
  CHECK(auxiliary_gradient_error<M>(config) < 1e-6);
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto x = checks::random_tensor<double>({1, 12}, 2);
  auto same = BasicTensor<double>::empty({6, 12});
  for (Index i = 0; i < 6; ++i) std::copy_n(x.data(), 12, same.data() + 12 * i);
  config.capacity_factor = 1;  // three places for six tokens that all want the same two experts
  const auto method = checks::make<M>(config, checks::site_of(layer));
  checks::randomize(method);
  const auto y = checks::output(method, layer, same), base = checks::base_output(layer, same);
  for (Index i = 0; i < 6; ++i)
    CHECK(std::equal(y.data() + i * 10, y.data() + (i + 1) * 10, base.data() + i * 10) == (i >= 3));
  config.limit_evaluation = false;
  const auto unlimited = checks::make<M>(config, checks::site_of(layer));
  checks::randomize(unlimited);
  const auto all = checks::output(unlimited, layer, same);
  CHECK(std::equal(all.data(), all.data() + 10, y.data()));
  CHECK(std::equal(all.data() + 50, all.data() + 60, y.data()));
}

TEST_CASE("experts of SiRA that are out leave enough others") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  graft::SiRAConfig config{.num_experts = 3, .top_k = 2, .rank = 2, .capacity_factor = {}};
  config.expert_dropout = 0.9;
  auto method = checks::make<graft::BasicSiRA<double>>(config, checks::site_of(layer));
  checks::randomize(method);
  const auto x = checks::random_tensor<double>({40, 12}, 2);
  const auto train = [&](std::uint64_t seed) {
    BasicTape<double> tape({.gradients = false, .seed = seed});
    return method.apply(layer, tape.constant(x)).value().clone();
  };
  const auto quiet = checks::output(method, layer, x);
  CHECK(checks::relative_error(train(1), quiet) > 1e-3);
  CHECK(checks::relative_error(train(1), train(2)) > 1e-3);
  CHECK(checks::relative_error(train(1), train(1)) == 0);
  // With all but two out, these two share everything.
  auto out = BasicTensor<double>::zeros({40, 3});
  for (Index m = 0; m < 40; ++m) out(m, 1) = 1;
  method.set_dropped(out);
  BasicTape<double> tape({.gradients = false});
  const auto y = method.apply(layer, tape.constant(x)).value();
  CHECK(std::isfinite(y[0]));
  method.set_dropped(BasicTensor<double>::zeros({2, 3}));
  CHECK_THROWS_AS(train(1), graft::ShapeError);
  CHECK_THROWS_WITH(graft::SiRAConfig{.expert_dropout = 1}.validate(),
                    Catch::Contains("expert_dropout"));
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
