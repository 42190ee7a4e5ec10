#include "graft/adapters/sparse/supertuning.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicSupertuning;
using graft::Supertuning;
using graft::SupertuningConfig;

TEST_CASE("Super-tuning and Supra begin as the identity, differentiate and merge") {
  for (const auto& config :
       {SupertuningConfig{.sparsity = 0.9},
        SupertuningConfig{.sparsity = 0.8, .select_top = false, .rank = 3, .alpha = 4}}) {
    CHECK(checks::change_at_init<BasicSupertuning<double>>(config, 15, 12) < 1e-15);
    CHECK(checks::gradient_error<BasicSupertuning<double>>(config, 15, 12) < 1e-8);
    CHECK(checks::merge_error<Supertuning>(config, 15, 12) < 1e-5);
  }
  CHECK(checks::trained<Supertuning>({.sparsity = 0.9}, 10, 12) == 11);  // ⌊120 · 0.0999…⌋
  CHECK(checks::trained<Supertuning>({.sparsity = 0.75, .rank = 2}, 10, 12) == 30 + 44);
}

TEST_CASE("Super-tuning takes the largest or the smallest elements in order") {
  const auto layer = checks::random_layer<float>(9, 7, 1);
  const auto w = layer.dense_weight();
  for (const bool top : {true, false}) {
    const SupertuningConfig config{.sparsity = 0.5, .select_top = top};
    const auto p =
        checks::make<Supertuning>(config, checks::site_of(layer)).tensors()[1].index->values;
    REQUIRE(p.size() == 31);
    for (std::size_t i = 1; i < p.size(); ++i)
      CHECK((std::abs(w[p[i - 1]]) >= std::abs(w[p[i]])) == top);
  }
}

TEST_CASE("Super-tuning refuses a sparsity that leaves nothing, and alpha without r") {
  CHECK_THROWS_WITH(checks::trained<Supertuning>({.sparsity = 0.999}),
                    Catch::Contains("leaves none"));
  CHECK_THROWS_WITH(checks::trained<Supertuning>({.sparsity = 0.5, .alpha = 2}),
                    Catch::Contains("without r"));
}
