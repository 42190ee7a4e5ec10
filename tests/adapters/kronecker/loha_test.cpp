#include "graft/adapters/kronecker/loha.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicLoHa;
using graft::LoHa;

TEST_CASE("LoHa begins as the identity, differentiates and merges") {
  CHECK(checks::change_at_init<BasicLoHa<double>>({.rank = 3}) < 1e-13);
  CHECK(checks::change_at_init<BasicLoHa<double>>({.rank = 3, .init_weights = false}) > 1e-4);
  CHECK(checks::gradient_error<BasicLoHa<double>>({.rank = 3, .alpha = 5}, 7, 13) < 1e-8);
  CHECK(checks::merge_error<LoHa>({.rank = 3, .alpha = 5}) < 1e-5);
  CHECK(checks::trained<LoHa>({.rank = 3}, 10, 12) == 2 * 3 * (10 + 12));
}

TEST_CASE("LoHa of a convolution has core tensors if asked to") {
  const auto layer = checks::random_layer<float>(6, 4 * 9, 1);
  auto site = checks::site_of(layer);
  site.conv.kernel = {3, 3};
  site.conv.in_channels = 4;
  const auto loha = checks::make<LoHa>({.rank = 2, .use_effective_conv2d = true}, site);
  CHECK(graft::trainable_elements(loha.tensors()) == 2 * (2 * 6 + 2 * 4 + 2 * 2 * 9));
  checks::randomize(loha);
  const auto x = checks::random_tensor<float>({5, 36}, 2);
  CHECK(checks::relative_error(checks::base_output(merge_linear(layer, loha), x),
                               checks::output(loha, layer, x)) < 1e-5);
}

TEST_CASE("LoHa begins as LyCORIS does if asked to") {
  CHECK(checks::change_at_init<BasicLoHa<double>>({.rank = 3, .init_weights = "lycoris"}) == 0);
  const auto layer = checks::random_layer<double>(300, 40 * 9, 1);
  auto site = checks::site_of(layer);
  site.conv.kernel = {3, 3};
  site.conv.in_channels = 40;
  const auto deviation = [](const graft::BasicTensor<double>& t) {
    double squares = 0;
    for (const double v : t) squares += v * v;
    return std::sqrt(squares / static_cast<double>(t.size()));
  };
  for (const bool cores : {false, true}) {
    const auto loha = checks::make<BasicLoHa<double>>(
        {.rank = 8, .use_effective_conv2d = cores, .init_weights = "lycoris"}, site);
    const double expected[] = {0.1, 1, 0, 1, 0.1, 0.1};
    const auto tensors = loha.tensors();
    REQUIRE(tensors.size() == (cores ? 6 : 4));
    for (std::size_t i = 0; i < tensors.size(); ++i)
      CHECK(deviation(tensors[i].parameter.value()) == Approx(expected[i]).epsilon(0.15));
  }
}

TEST_CASE("LoHa refuses a rank below one and unknown inits") {
  CHECK_THROWS_WITH(checks::trained<LoHa>({.init_weights = "xavier"}), Catch::Contains("lycoris"));
  CHECK_THROWS_WITH(checks::trained<LoHa>({.rank = 0}), Catch::Contains("rank 0"));
}
