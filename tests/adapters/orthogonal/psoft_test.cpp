#include "graft/adapters/orthogonal/psoft.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "adapters/method_checks.hpp"

using graft::BasicPSOFT;
using graft::Index;
using graft::PSOFT;
using graft::PSOFTConfig;

TEST_CASE("PSOFT in all its forms begins as the identity, differentiates and merges") {
  for (const auto& config :
       {PSOFTConfig{.rank = 4, .alpha = 6}, PSOFTConfig{.rank = 4, .orthogonal = false},
        PSOFTConfig{.rank = 4, .ab_init = "pissa_init", .mag_a = false, .use_cayley_neumann = true},
        PSOFTConfig{.rank = 3,
        .svd = "lowrank",
        .mag_b = false,
        .use_cayley_neumann = true,
        .num_cayley_neumann_terms = 7,
        .cayley_neumann_eps = 0.3}}) {
    CHECK(checks::change_at_init<BasicPSOFT<double>>(config) < 1e-13);
    CHECK(checks::gradient_error<BasicPSOFT<double>>(config) < 1e-7);
    CHECK(checks::merge_error<PSOFT>(config) < 1e-5);
  }
  CHECK(checks::trained<PSOFT>({.rank = 5}) == 10 + 2 * 5);
  CHECK(checks::trained<PSOFT>({.rank = 5, .orthogonal = false, .mag_a = false}) == 25 + 5);
}

TEST_CASE("PSOFT's rotation is orthogonal, near its series, and short where it must be") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto rotation = [&](PSOFTConfig config, double scale) {
    config.rank = 4;
    config.mag_a = config.mag_b = false;
    const auto method = checks::make<BasicPSOFT<double>>(config, checks::site_of(layer));
    checks::randomize(method, scale);
    graft::BasicTape<double> tape;
    return method.rotation(tape).value();
  };
  const auto r = rotation({}, 0.5);
  for (Index i = 0; i < 4; ++i)
    for (Index j = 0; j < 4; ++j) {
      double product = 0;
      for (Index k = 0; k < 4; ++k) product += r(i, k) * r(j, k);
      CHECK(product == Approx(i == j ? 1 : 0).margin(1e-12));
    }
  CHECK(checks::relative_error(
            rotation({.use_cayley_neumann = true, .num_cayley_neumann_terms = 30}, 0.05),
            rotation({}, 0.05)) < 1e-12);
  double square = 0;  // two terms: I + 2 Q
  const auto capped = rotation(
      {.use_cayley_neumann = true, .num_cayley_neumann_terms = 2, .cayley_neumann_eps = 0.2}, 3);
  for (Index i = 0; i < 16; ++i) square += std::pow(capped[i] - (i % 5 == 0 ? 1 : 0), 2);
  CHECK(std::sqrt(square) == Approx(0.4));
}

TEST_CASE("PSOFT refuses ranks and names that there are not") {
  CHECK_THROWS_WITH(checks::trained<PSOFT>({.rank = 11}), Catch::Contains("r 11"));
  CHECK_THROWS_WITH(checks::trained<PSOFT>({.rank = 2, .ab_init = "lora"}),
                    Catch::Contains("ab_svd_init 'lora'"));
  CHECK_THROWS_WITH(checks::trained<PSOFT>({.rank = 2, .svd = "some"}),
                    Catch::Contains("psoft_svd 'some'"));
}
