#include "graft/adapters/mixtures/sira.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

TEST_CASE("an expert of SiRA takes no more tokens than it has places for") {
  using M = graft::BasicSiRA<double>;
  graft::SiRAConfig config{.num_experts = 4, .top_k = 2, .rank = 3, .expert_dropout = 0};
  CHECK(checks::change_at_init<M>(config) == 0);
  CHECK(checks::trained<graft::SiRA>(config) == 4 * (3 * 22 + 12));
  CHECK(checks::gradient_error<M>(config) < 1e-6);
  CHECK(checks::auxiliary_gradient_error<M>(config) < 1e-6);
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
