#include "graft/adapters/low_rank/unilora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicUniLoRA;
using graft::UniLoRA;

TEST_CASE("Uni-LoRA takes its places as numpy shuffles them") {
  CHECK(graft::balanced_index(20, 6, 42) ==
        std::vector<std::int32_t>{0, 3, 5, 2, 5, 5, 2, 2, 3, 1, 0, 4, 4, 1, 3, 4, 4, 0, 1, 0});
}

TEST_CASE("Uni-LoRA differentiates, merges and is no identity") {
  CHECK(checks::change_at_init<BasicUniLoRA<double>>({.rank = 3, .theta_d_length = 16}) > 1e-7);
  for (const bool save : {false, true}) {
    const graft::UniLoRAConfig config{.rank = 3, .theta_d_length = 16, .save_indices = save};
    CHECK(checks::gradient_error<BasicUniLoRA<double>>(config, 7, 13) < 1e-7);
    CHECK(checks::merge_error<UniLoRA>(config) < 1e-5);
    CHECK(checks::trained<UniLoRA>(config) == 16);
  }
  CHECK_THROWS_WITH(checks::trained<UniLoRA>({.rank = 0}), Catch::Contains("rank 0"));
}

TEST_CASE(
    "Uni-LoRA's index in the file gives what the seed gives, and another one something else") {
  const auto layer = checks::random_layer<float>(6, 8, 1);
  const auto x = checks::random_tensor<float>({3, 8}, 2);
  const auto seeded =
      checks::make<UniLoRA>({.rank = 2, .theta_d_length = 9}, checks::site_of(layer));
  auto saved = checks::make<UniLoRA>({.rank = 2, .theta_d_length = 9, .save_indices = true},
                                     checks::site_of(layer));
  const auto y = checks::output(seeded, layer, x);
  CHECK(checks::relative_error(checks::output(saved, layer, x), y) < 1e-6);
  auto& places = saved.tensors()[1].index->values;
  std::reverse(places.begin(), places.end());
  saved.after_load();
  CHECK(checks::relative_error(checks::output(saved, layer, x), y) > 1e-6);
  places[0] = 9;
  CHECK_THROWS_AS(saved.after_load(), graft::ValueError);
}
