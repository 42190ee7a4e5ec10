#include "graft/adapters/selection/spt.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using graft::SPTMode;

TEST_CASE("SPT replaces many sensitive elements of a matrix by a module, of a vector by all") {
  // The twelve most sensitive elements: eight in the first matrix, one in the other, three of five
  // in the vector.
  auto crowded = graft::BasicTensor<double>::full({4, 4}, 1), lonely = crowded.clone(),
       vector = graft::BasicTensor<double>::full({5}, 1);
  for (Index i = 0; i < 8; ++i) crowded[i] = 10;
  lonely[3] = 10;
  for (Index i = 0; i < 3; ++i) vector[i] = 10;
  // A module of rank 1 has 8 elements: structured from 8 / 2 on.
  const auto choices = graft::spt_allocation<double>({crowded, lonely, vector}, 12, 1, 2, 5);
  CHECK(choices[0].mode == SPTMode::structured);
  CHECK(choices[0].trained == 8);
  CHECK(choices[1].mode == SPTMode::sparse);
  CHECK(choices[1].places == graft::selection::Places{3});
  CHECK(choices[2].mode == SPTMode::vector);
  CHECK(choices[2].trained == 5);
  CHECK(graft::spt_trained(choices) == 14);
}

TEST_CASE("SPT takes the number of sensitive elements that fills a budget best") {
  std::vector<graft::BasicTensor<double>> sensitivities;
  for (unsigned seed = 1; seed <= 4; ++seed) {
    auto s = checks::random_tensor<double>({20, 30}, seed, seed);
    for (double& v : s) v *= v;
    sensitivities.push_back(std::move(s));
  }
  const std::vector<Index> candidates{400, 25, 50, 100, 200, 800};
  const auto count = [&](Index tau) {
    return graft::spt_trained(graft::spt_allocation(sensitivities, tau, 4, 2, 5));
  };
  Index best = 0;
  for (const Index tau : candidates)
    if (count(tau) <= 350) best = std::max(best, count(tau));
  const Index tau = graft::spt_budget_tau(sensitivities, 350, candidates, 4, 2, 5);
  REQUIRE(best > 0);
  CHECK(count(tau) == best);
  CHECK(count(tau) != tau);  // modules took the place of single elements
  CHECK(graft::spt_budget_tau(sensitivities, 10, candidates, 4, 2, 5) == 0);
}

TEST_CASE("SPT-Adapter is a bottleneck behind a layer that begins as the identity") {
  const graft::SPTConfig config{
      .rank = 3, .structured_type = "adapter", .structured_modules = {"proj"}};
  CHECK(checks::change_at_init<graft::BasicSPTAdapter<double>>(config) == 0);
  CHECK(checks::gradient_error<graft::BasicSPTAdapter<double>>(config) < 1e-7);
  CHECK(checks::trained<graft::BasicSPTAdapter<float>>(config, 11, 5) == 2 * 11 * 3 + 3 + 11);

  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto parts = checks::placed<graft::SPTMethod<double>>(config, layer, {"proj"});
  CHECK(parts[0].part->tensors()[0].name == "adapter_down.weight");
  CHECK_THAT(parts[0].part->merge_reason(), Catch::Contains("not linear"));

  // As the formula says, by numbers of one output.
  graft::StandaloneInit<double> init(3);
  const auto one = checks::random_layer<double>(1, 2, 4);
  const graft::BasicSPTAdapter<double> adapter({.rank = 1, .structured_modules = {"proj"}},
                                               checks::site_of(one), init.context());
  checks::randomize(adapter);
  const auto values = adapter.tensors();
  const auto value = [&](std::size_t i) { return values[i].parameter.value()[0]; };
  const auto x = checks::random_tensor<double>({1, 2}, 5);
  const double y = checks::base_output(one, x)[0], h = value(0) * y + value(1),
               gelu = h * 0.5 * (1 + std::erf(h / std::sqrt(2.0)));
  CHECK(checks::output(adapter, one, x)[0] == Approx(y + value(2) * gelu + value(3)));
}

TEST_CASE("SPT refuses structured modules that it does not know, and adapters of convolutions") {
  graft::SPTConfig config{.structured_type = "prefix", .structured_modules = {"proj"}};
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("'prefix', expected lora or adapter"));
  config.structured_type = "adapter";
  config.validate();
  const auto layer = checks::random_layer<double>(3, 4, 1);
  auto site = checks::site_of(layer);
  site.conv.kernel = {2, 2};
  graft::StandaloneInit<double> init(3);
  CHECK_THROWS_WITH(graft::BasicSPTAdapter<double>(config, site, init.context()),
                    Catch::Contains("convolution"));
}
