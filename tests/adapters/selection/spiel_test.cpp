#include "graft/adapters/selection/spiel.hpp"

#include <catch2/catch.hpp>
#include <set>

#include "adapters/method_checks.hpp"

TEST_CASE(
    "SpIEL keeps the number of its places, each once, and leaves what it drops and grows again") {
  graft::SpIELConfig config;
  graft::selection::SpIELAdam<double> state({3, 11, 12, 30, 31});
  state.begin();
  const auto g = checks::random_tensor<double>({6, 7}, 2);
  state.choose(g);
  state.values = {0.5, -0.1, 0.2, 0.05, -0.9};
  const auto before = state;
  state.reselect(3, config);
  CHECK(std::set<std::int64_t>(state.places.begin(), state.places.end()).size() == 5);
  // The two largest values are never dropped.
  CHECK(state.places[0] == 3);
  CHECK(state.places[4] == 31);
  CHECK(state.values[4] == before.values[4]);
  for (std::size_t i = 0; i < 5; ++i)
    if (state.places[i] != before.places[i]) CHECK(state.values[i] == 0);
}

TEST_CASE("SpIEL-MA grows only places that are not active") {
  graft::SpIELConfig config;
  config.selection_algorithm = "sm3";
  graft::selection::SpIELMomentum<double> state(4, 5, {0, 6, 13});
  const std::vector<double> g{1, -2, 0.5};
  state.step(g.data(), 0.1, config);
  const auto rows = state.rows;
  state.reselect(2);
  CHECK(std::set<std::int64_t>(state.places.begin(), state.places.end()).size() == 3);
  state.step(g.data(), 0.1, config);
  for (std::size_t r = 0; r < rows.size(); ++r) CHECK(state.rows[r] >= rows[r]);
}

TEST_CASE("SpIEL's steps of accumulation and exchange") {
  graft::SpIELConfig config;
  config.reselection_steps = 5;
  config.selection_accumulation_steps = 2;
  CHECK(config.accumulates(1));
  CHECK(config.accumulates(2));
  CHECK_FALSE(config.accumulates(3));
  CHECK(config.reselects(2));
  CHECK(config.reselects(7));
  CHECK(config.rate(2, 10) == 1);
  CHECK(config.rate(7, 10) == Approx(0.06));
  config.selection_accumulation_steps = 5;
  CHECK_THROWS_AS(config.validate(), graft::ValueError);
}
