#include "graft/adapters/low_rank/vera.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicPVeRA;
using graft::BasicVeRA;
using graft::Index;

TEST_CASE("VeRA begins as the identity, differentiates and merges") {
  CHECK(checks::change_at_init<BasicVeRA<double>>({.rank = 5}) < 1e-13);
  CHECK(checks::gradient_error<BasicVeRA<double>>({.rank = 5}, 7, 13) < 1e-7);
  CHECK(checks::merge_error<graft::VeRA>({.rank = 5}) < 1e-5);
  CHECK(checks::trained<graft::VeRA>({.rank = 5}, 10, 12) == 5 + 10);
  CHECK_THROWS_WITH(checks::trained<graft::VeRA>({.rank = 0}), Catch::Contains("rank 0"));
}

TEST_CASE("VeRA draws its projections from the key as torch does") {
  auto layer = checks::random_layer<float>(3, 4, 1);
  const auto method = checks::make<graft::VeRA>({.rank = 2}, checks::site_of(layer));
  const auto list = method.tensors();
  CHECK(list[2].name == "vera_A");
  CHECK(list[2].parameter.value()[1] == Approx(0.65700656));
  CHECK(list[3].parameter.value()[0] == Approx(-0.15370919));
  CHECK_FALSE(list[2].parameter.trainable());
}

TEST_CASE("VeRA draws the same projections in double precision as in single") {
  const auto small = checks::random_layer<float>(5, 7, 1);
  const auto large = checks::random_layer<double>(5, 7, 1);
  const auto f = checks::make<graft::VeRA>({.rank = 3}, checks::site_of(small)).tensors();
  const auto d = checks::make<BasicVeRA<double>>({.rank = 3}, checks::site_of(large)).tensors();
  for (std::size_t t : {2U, 3U})
    for (Index i = 0; i < f[t].parameter.size(); ++i)
      CHECK(d[t].parameter.value()[i] == static_cast<double>(f[t].parameter.value()[i]));
}

TEST_CASE("VeRA cuts the projections of the largest layer to the size of each") {
  const auto small = checks::random_layer<double>(4, 6, 1),
             large = checks::random_layer<double>(9, 8, 2);
  auto site = checks::site_of(small, "a"), other = checks::site_of(large, "b");
  site.all_sites = other.all_sites = {{"a", graft::Shape{4, 6}}, {"b", graft::Shape{9, 8}}};
  graft::TorchGenerator generator(1);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  const BasicVeRA<double> first({.rank = 3}, site, context), second({.rank = 3}, other, context);
  checks::randomize(first);
  const auto t = first.tensors();
  CHECK(t[2].parameter == second.tensors()[2].parameter);
  CHECK(t[2].parameter.shape() == graft::Shape{3, 8});
  CHECK(t[3].parameter.shape() == graft::Shape{9, 3});
  const auto merged = merge_linear(small, first).dense_weight();
  double delta = 0;
  for (Index k = 0; k < 3; ++k)
    delta += t[0].parameter.value()[1] * t[3].parameter.value()(1, k) * t[1].parameter.value()[k] *
             t[2].parameter.value()(k, 5);
  CHECK(merged(1, 5) - small.dense_weight()(1, 5) == Approx(delta));
}

TEST_CASE("PVeRA begins as the identity, differentiates and merges with the mean of its code") {
  CHECK(checks::change_at_init<BasicPVeRA<double>>({.rank = 5}) < 1e-13);
  CHECK(checks::merge_error<graft::PVeRA>({.rank = 5}) < 1e-5);
  CHECK(checks::trained<graft::PVeRA>({.rank = 5}, 10, 12) == 2 * 5 + 10);
  // The tape's seed fixes the draws, so the gradient of the training pass can be checked too.
  CHECK(checks::gradient_error<BasicPVeRA<double>>({.rank = 3}, 7, 13) < 1e-7);
  CHECK_THROWS_WITH(checks::merge_error<graft::PVeRA>({.rank = 2, .sample_at_inference = true}),
                    Catch::Contains("draws a code"));
}

TEST_CASE("PVeRA draws its projections from the key as torch does") {
  const auto layer = checks::random_layer<float>(3, 4, 1);
  const auto list = checks::make<graft::PVeRA>({.rank = 2}, checks::site_of(layer)).tensors();
  REQUIRE(list[2].name == "pvera_A");
  CHECK(list[2].parameter.value()(0, 1) == Approx(0.657006561756134));
  CHECK(list[2].parameter.value()(3, 3) == Approx(0.045368924736976624));
  CHECK(list[3].parameter.value()(2, 1) == Approx(1.4382741451263428));
}

TEST_CASE("PVeRA draws its code in training alone, and from its own seed if it has one") {
  const auto layer = checks::random_layer<float>(6, 8, 1);
  const auto x = checks::random_tensor<float>({4, 8}, 2);
  const auto train = [&](const graft::PVeRA& method, std::uint64_t seed) {
    graft::Tape tape({.gradients = false, .training = true, .seed = seed});
    return method.apply(layer, tape.constant(x)).value();
  };
  const auto method = checks::make<graft::PVeRA>({.rank = 3}, checks::site_of(layer));
  checks::randomize(method);
  const auto mean = checks::output(method, layer, x);
  CHECK(checks::relative_error(train(method, 1), mean) > 1e-3);
  CHECK(checks::relative_error(train(method, 1), train(method, 1)) == 0);
  CHECK(checks::relative_error(train(method, 1), train(method, 2)) > 1e-3);
  const auto make = [&] {
    auto m = checks::make<graft::PVeRA>({.rank = 3, .generator_seed = 4}, checks::site_of(layer));
    checks::randomize(m);
    return m;
  };
  const auto first = make(), second = make();
  const auto y = train(first, 1);
  CHECK(checks::relative_error(y, train(second, 2)) == 0);
  CHECK(checks::relative_error(train(first, 1), y) > 1e-3);
}
