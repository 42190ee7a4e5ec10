#include "graft/adapters/selection/apet.hpp"

#include <catch2/catch.hpp>
#include <numeric>
#include <set>

#include "adapters/method_checks.hpp"

using graft::APET;
using graft::APETConfig;
using graft::BasicAPET;
using graft::Index;

TEST_CASE("APET trains a budget of random offsets, differentiates and merges") {
  const APETConfig config{.budget = 31};
  CHECK(checks::change_at_init<BasicAPET<double>>(config) == 0);
  CHECK(checks::gradient_error<BasicAPET<double>>(config) < 1e-8);
  CHECK(checks::merge_error<APET>(config) < 1e-5);
  CHECK(checks::trained<APET>(config) == 31);
  // All of the weights: full fine-tuning.
  CHECK(checks::trained<APET>({.budget = 120}) == 120);
}

TEST_CASE("APET's budget is that of all layers, at places that follow from the seed") {
  const auto a = checks::random_layer<float>(10, 12, 1), b = checks::random_layer<float>(4, 5, 2);
  const auto places = [&](std::uint64_t seed) {
    graft::StandaloneInit<float> init(3);
    auto one = checks::site_of(a, "one"), two = checks::site_of(b, "two");
    one.all_sites = two.all_sites = {{"one", {10, 12}}, {"two", {4, 5}}};
    const APETConfig config{.budget = 70, .seed = seed};
    const APET first(config, one, init.context()), second(config, two, init.context());
    CHECK(trainable_elements(first.tensors()) + trainable_elements(second.tensors()) == 70);
    for (const auto* method : {&first, &second}) {
      const auto& list = method->places();
      CHECK(std::is_sorted(list.begin(), list.end()));
      CHECK(std::set<std::int64_t>(list.begin(), list.end()).size() == list.size());
      CHECK((list.front() >= 0 && list.back() < method->in_features() * method->out_features()));
    }
    return std::pair(first.places(), second.places());
  };
  CHECK(places(1) == places(1));
  CHECK(places(1) != places(2));
  CHECK(places(1).second.size() == Approx(10).margin(7));
}

TEST_CASE("Distinct numbers are uniform") {
  std::vector<int> counts(12, 0);
  graft::TorchGenerator generator(1);
  for (int trial = 0; trial < 3000; ++trial)
    for (const auto n : graft::detail::distinct_numbers(12, 4, generator))
      ++counts[static_cast<std::size_t>(n)];
  for (const int c : counts) CHECK(c == Approx(1000).margin(120));
}

TEST_CASE("APET takes whole tensors in order as long as they fit") {
  const std::vector<Index> sizes{50, 30, 40, 10}, order{2, 0, 3, 1};
  const auto selection = graft::apet_selection(sizes, order, 85);
  CHECK(selection.chosen == std::vector<bool>{false, true, true, true});
  CHECK(selection.used == 80);
  CHECK(graft::apet_selection(sizes, order, 130).used == 130);
  CHECK(graft::apet_selection(sizes, order, 5).used == 0);
  CHECK_THROWS_WITH(graft::apet_selection(sizes, std::vector<Index>{1, 1}, 5),
                    Catch::Contains("candidate 1"));
}

TEST_CASE("APET refuses what cannot be") {
  CHECK_THROWS_WITH(checks::trained<APET>({.budget = 121}), Catch::Contains("120 weights"));
  CHECK_THROWS_WITH(checks::trained<APET>({.budget = 0}), Catch::Contains("budget 0"));
  CHECK_THROWS_WITH(checks::trained<APET>({.form = "tensors"}), Catch::Contains("apet_selection"));
  CHECK_THROWS_WITH(checks::trained<APET>({.form = "rows"}), Catch::Contains("rows"));
}
