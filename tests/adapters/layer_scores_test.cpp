#include "graft/adapters/layer_scores.hpp"

#include <catch2/catch.hpp>
#include <numeric>
#include <set>

using graft::Index;
using graft::LayerScores;

TEST_CASE("layers that a low loss can do without become dispensable") {
  LayerScores scores(4);
  scores.update({{0, 1}, {2, 3}}, {0.1, 3.0}, 1.0);
  CHECK(scores.scores()[0] > 0);
  CHECK(scores.scores()[0] == scores.scores()[1]);
  CHECK(scores.scores()[2] == Approx(-scores.scores()[0]));
  CHECK(scores.most_dispensable(2) == std::vector<Index>{0, 1});
  CHECK(scores.dispensable()[0] + scores.needed()[0] == Approx(1));
  const auto before = scores.scores();
  scores.update({{0, 2}, {1, 2}}, {0.7, 0.7}, 1.0);
  CHECK(scores.scores() == before);
  CHECK_THROWS_AS(scores.update({{0}}, {1.0, 2.0}, 1.0), graft::ShapeError);
  CHECK_THROWS_AS(scores.update({{4}}, {1.0}, 1.0), graft::ValueError);
  CHECK_THROWS_AS(scores.set_scores({1.0}), graft::ShapeError);
}

TEST_CASE("layers are drawn without putting back, by their weights") {
  std::vector<int> counts(5, 0);
  for (std::uint64_t draw = 0; draw < 2000; ++draw) {
    const auto some = LayerScores::sample({1, 1, 8, 0, 1}, 2, 3, draw);
    REQUIRE(some.size() == 2);
    CHECK(some[0] < some[1]);
    for (const auto i : some) ++counts[static_cast<std::size_t>(i)];
  }
  CHECK(counts[3] == 0);
  CHECK(counts[2] > 1800);
  CHECK(counts[0] == Approx(counts[4]).margin(120));
  CHECK(LayerScores::sample({1, 2, 3}, 9, 1, 1).size() == 3);
  CHECK(LayerScores::sample({1, 2, 3}, 2, 1, 7) == LayerScores::sample({1, 2, 3}, 2, 1, 7));
}
