#include "graft/adapters/sparse/shira.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicSHiRA;
using graft::SHiRA;
using graft::SHiRAConfig;

TEST_CASE("SHiRA begins as the identity, differentiates and merges") {
  const SHiRAConfig config{.rank = 2, .random_seed = 3};
  CHECK(checks::change_at_init<BasicSHiRA<double>>(config, 15, 12) < 1e-15);
  CHECK(checks::gradient_error<BasicSHiRA<double>>(config, 15, 12) < 1e-8);
  CHECK(checks::merge_error<SHiRA>(config, 15, 12) < 1e-5);
  CHECK(checks::trained<SHiRA>(config, 15, 12) == 2 * (15 + 12));
  CHECK(checks::change_at_init<BasicSHiRA<double>>({.rank = 1, .init_weights = false}) > 1e-3);
}

TEST_CASE("SHiRA's positions are distinct, in order of rows, and those of the seed") {
  const auto layer = checks::random_layer<float>(9, 7, 1);
  const auto positions = [&](std::int64_t seed) {
    const SHiRAConfig config{.rank = 1, .random_seed = seed};
    return checks::make<SHiRA>(config, checks::site_of(layer)).tensors()[1].index->values;
  };
  const auto p = positions(5);
  REQUIRE(p.size() == 32);
  for (std::size_t i = 1; i < 16; ++i) CHECK(p[i - 1] * 7 + p[15 + i] < p[i] * 7 + p[16 + i]);
  CHECK(p == positions(5));
  CHECK(p != positions(6));
}

TEST_CASE("SHiRA refuses more elements than the layer has, and positions outside of it") {
  CHECK_THROWS_WITH(checks::trained<SHiRA>({.rank = 9}, 15, 12), Catch::Contains("243 elements"));
  CHECK_THROWS_WITH(checks::trained<SHiRA>({.rank = 1, .mask_type = "top"}, 15, 12),
                    Catch::Contains("mask_type 'top'"));
  const auto layer = checks::random_layer<float>(9, 7, 1);
  auto method = checks::make<SHiRA>({.rank = 1}, checks::site_of(layer));
  method.tensors()[1].index->values[20] = 7;
  CHECK_THROWS_WITH(method.after_load(), Catch::Contains("outside of [9, 7]"));
}
