#include "graft/adapters/low_rank/kasa.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicKaSA;
using graft::BasicTensor;
using graft::ConfigValue;
using graft::Index;
using graft::LoRAConfig;

namespace {

struct Made {
  graft::BasicDenseLinear<double> layer = checks::random_layer<double>(9, 12, 1);
  Index replaced = 0;
  BasicKaSA<double> make(const LoRAConfig& config) {
    auto site = checks::site_of(layer);
    site.replace_weight = [this](BasicTensor<double> w) {
      layer = graft::BasicDenseLinear<double>(std::move(w), layer.bias());
      ++replaced;
    };
    return checks::make<BasicKaSA<double>>(config, site);
  }
};

LoRAConfig config_of(Index rank) {
  LoRAConfig config{.rank = rank, .alpha = 6};
  config.kasa_config = ConfigValue::Map{{"beta", 0.2}, {"gamma", 0.3}};
  return config;
}

}  // namespace

TEST_CASE("KaSA drops the smallest singular values of the weight once") {
  Made made;
  const auto before = graft::svd(made.layer.dense_weight());
  const auto kasa = made.make(config_of(3));
  const auto after = graft::svd(made.layer.dense_weight());
  for (Index k = 0; k < 6; ++k) CHECK(after.s[k] == Approx(before.s[k]));
  for (Index k = 6; k < 9; ++k) CHECK(after.s[k] < 1e-12);
  CHECK(made.replaced == 1);
  made.make(config_of(3));
  CHECK(made.replaced == 1);
}

TEST_CASE(
    "KaSA adds s B diag(λ) A and a loss that pulls λ to zero and the factors to orthogonality") {
  Made made;
  const auto kasa = made.make(config_of(3));
  checks::randomize(kasa);
  const auto list = kasa.tensors();
  REQUIRE(list.back().name == "lora_diag");
  const auto a = list[0].parameter.value(), b = list[1].parameter.value(),
             d = list.back().parameter.value();
  const auto x = checks::random_tensor<double>({4, 12}, 5);
  auto expected = checks::base_output(made.layer, x).clone();
  const auto h = graft::detail::product(x, a, 1.0, false, true);
  for (Index t = 0; t < 4; ++t)
    for (Index o = 0; o < 9; ++o)
      for (Index k = 0; k < 3; ++k) expected(t, o) += 2 * h(t, k) * d[k] * b(o, k);
  CHECK(checks::relative_error(checks::output(kasa, made.layer, x), expected) < 1e-13);
  std::vector<graft::BasicParameter<double>> parameters;
  for (const auto& t : list) parameters.push_back(t.parameter);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) { return kasa.auxiliary_loss(tape); }, parameters)
            .relative_error < 1e-8);
}

TEST_CASE("KaSA refuses ranks that leave nothing of the weight") {
  Made made;
  CHECK_THROWS_WITH(made.make(config_of(9)), Catch::Contains("less than 9"));
}
