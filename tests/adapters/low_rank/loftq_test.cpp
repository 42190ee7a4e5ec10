#include "graft/adapters/low_rank/loftq.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "adapters/method_checks.hpp"
#include "graft/adapters/low_rank/lora.hpp"

using graft::BasicTensor;

TEST_CASE("more rounds of LoftQ bring the quantised weight and the factors nearer to the weight") {
  const auto w = checks::random_tensor<double>({12, 9}, 1);
  const auto quantise = [](const BasicTensor<double>& rest) {
    auto q = rest.clone();
    for (double& v : q) v = std::nearbyint(2 * v) / 2;
    return q;
  };
  auto a = BasicTensor<double>::empty({3, 9}), b = BasicTensor<double>::empty({12, 3});
  std::vector<double> errors;
  graft::loftq_factors<double>(w, 4, 1.7, quantise, a, b, [&](const BasicTensor<double>& q) {
    const auto product = graft::detail::product(b, a, 1.7);
    double error = 0;
    for (graft::Index i = 0; i < w.size(); ++i) error += std::pow(w[i] - q[i] - product[i], 2);
    errors.push_back(error);
  });
  REQUIRE(errors.size() == 4);
  CHECK(errors[3] < errors[0]);
}

TEST_CASE("LoRA with the init loftq keeps the layer up to the rest of the quantisation") {
  auto layer = checks::random_layer<double>(10, 12, 1);
  const auto before = layer;
  auto site = checks::site_of(layer);
  site.replace_weight = [&](BasicTensor<double> w) {
    layer = graft::BasicDenseLinear<double>(std::move(w), layer.bias());
  };
  graft::LoRAConfig config{.rank = 10, .alpha = 5};
  config.init_lora_weights = "loftq";
  graft::StandaloneInit<double> init(1);
  CHECK_THROWS_WITH(graft::BasicLoRA<double>(config, site, init.context()),
                    Catch::Contains("quantiser"));
  init.context().quantise = [](const BasicTensor<double>& w, graft::Index bits) {
    CHECK(bits == 4);
    auto q = w.clone();
    for (double& v : q) v = std::nearbyint(v);
    return q;
  };
  const graft::BasicLoRA<double> lora(config, site, init.context());
  const auto x = checks::random_tensor<double>({5, 12}, 2);
  // With the whole rank, the factors hold all that the quantised weight lacks.
  CHECK(checks::relative_error(checks::output(lora, layer, x), checks::base_output(before, x)) <
        1e-12);
  CHECK(checks::relative_error(layer.dense_weight(), before.dense_weight()) > 0.01);
}
