#include "graft/adapters/low_rank/lily.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicLily;
using graft::Lily;

TEST_CASE("Lily begins as the identity, differentiates and does not merge") {
  CHECK(checks::change_at_init<BasicLily<double>>({.rank = 3, .num_b = 4}) < 1e-13);
  CHECK(checks::gradient_error<BasicLily<double>>({.rank = 3, .num_b = 4, .scaling = 1.5}, 7, 13) <
        1e-7);
  CHECK(checks::trained<Lily>({.rank = 3, .num_b = 4}, 10, 12) == 3 * 12 + 4 * 3 * 10 + 4 * 3);
  CHECK_THROWS_WITH(checks::merge_error<Lily>({.rank = 3}),
                    Catch::Contains("routes by the tokens"));
  CHECK_THROWS_WITH(checks::trained<Lily>({.num_b = 0}), Catch::Contains("num_B 0"));
}

TEST_CASE("Lily shares B among layers of one kind and A among neighbours") {
  const auto square = checks::random_layer<double>(6, 6, 1),
             wide = checks::random_layer<double>(8, 6, 2);
  graft::TorchGenerator generator(1);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  std::vector<std::pair<std::string, graft::Shape>> all;
  for (int i = 0; i < 3; ++i) {
    all.emplace_back(graft::concat("l.", i, ".q"), graft::Shape{6, 6});
    all.emplace_back(graft::concat("l.", i, ".v"), graft::Shape{8, 6});
  }
  std::vector<BasicLily<double>> made;
  for (const auto& [path, shape] : all) {
    auto site = checks::site_of(shape[0] == 6 ? square : wide, path);
    site.all_sites = all;
    made.emplace_back(graft::LilyConfig{.rank = 2, .stride_a = 2, .target_modules = {"q", "v"}},
                      site, context);
  }
  const auto tensor = [&](std::size_t layer, std::size_t which) {
    return made[layer].tensors()[which].parameter;
  };
  CHECK(tensor(0, 1) == tensor(4, 1));
  CHECK_FALSE(tensor(0, 1) == tensor(1, 1));
  CHECK(tensor(0, 0) == tensor(2, 0));
  CHECK_FALSE(tensor(0, 0) == tensor(4, 0));
  CHECK_FALSE(tensor(0, 2) == tensor(2, 2));
}
