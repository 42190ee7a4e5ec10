#include "graft/adapters/elementwise/road.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicRoAd;
using graft::RoAd;
using graft::RoAdConfig;

TEST_CASE("every variant of RoAd begins as the identity, differentiates and merges") {
  for (const auto& [variant, trained] : {std::pair{"road_1", 12}, {"road_2", 24}, {"road_4", 48}}) {
    const RoAdConfig config{.variant = variant, .group_size = 4};
    CHECK(checks::change_at_init<BasicRoAd<double>>(config, 12, 9) == 0);
    CHECK(checks::gradient_error<BasicRoAd<double>>(config, 12, 9) < 1e-8);
    CHECK(checks::merge_error<RoAd>(config, 12, 9) < 1e-5);
    CHECK(checks::trained<RoAd>(config, 12, 9) == trained);
  }
}

TEST_CASE("RoAd refuses unknown variants and groups that do not fit") {
  CHECK_THROWS_WITH(checks::trained<RoAd>({.variant = "road_3", .group_size = 4}, 12, 9),
                    Catch::Contains("road_3"));
  CHECK_THROWS_WITH(checks::trained<RoAd>({.group_size = 8}, 12, 9),
                    Catch::Contains("8 does not divide"));
  CHECK_THROWS_WITH(checks::trained<RoAd>({.group_size = 3}, 12, 9), Catch::Contains("even"));
}
