#include "graft/compose/conpet.hpp"

#include <catch2/catch.hpp>

using graft::Index;
using Wide = graft::BasicTensor<double>;
using Lists = std::vector<std::vector<Index>>;

TEST_CASE("ConPET: the best tasks of each sample, the true one among them in training") {
  const auto selector = Wide::from({1, 3, 2, 5, 5, 0}, {2, 3});
  CHECK(graft::choose_tasks(selector, 2) == Lists{{1, 2}, {0, 1}});
  const std::vector<std::int64_t> truth{0, 1};
  CHECK(graft::choose_tasks(selector, 2, truth) == Lists{{1, 0}, {0, 1}});
  CHECK(graft::choose_tasks(selector, 7) == Lists{{1, 2, 0}, {0, 1, 2}});
  CHECK_THROWS_AS(graft::choose_tasks(selector, 0), graft::ValueError);
  const std::vector<std::int64_t> far{0, 3};
  CHECK_THROWS_AS(graft::choose_tasks(selector, 1, far), graft::ValueError);
}

TEST_CASE("ConPET: logits of the chosen tasks side by side; all tasks: no selector") {
  const std::vector<Wide> logits{Wide::from({1, 2, 3, 4}, {2, 2}), Wide::from({5, 6}, {2, 1})};
  const auto some = graft::chosen_logits(logits, {{1}, {0}}, -9);
  CHECK(std::vector<double>(some.begin(), some.end()) == std::vector<double>{-9, -9, 5, 3, 4, -9});
  const auto all = graft::chosen_logits(logits, {{1, 0}, {0, 1}}, -9);
  CHECK(std::vector<double>(all.begin(), all.end()) == std::vector<double>{1, 2, 5, 3, 4, 6});
  CHECK_THROWS_AS(graft::chosen_logits(logits, {{0}}), graft::ShapeError);
}

TEST_CASE("ConPET: replay within a number of batches, and kept logits") {
  graft::TorchGenerator generator(1);
  const auto batches = graft::replay_batches(7, 3, 4, 0, generator);
  REQUIRE(batches.size() == 4);
  std::vector<Index> seen, old;
  for (const auto& batch : batches)
    for (const Index i : batch) (i < 7 ? seen : old).push_back(i);
  std::sort(seen.begin(), seen.end());
  CHECK(seen == std::vector<Index>{0, 1, 2, 3, 4, 5, 6});
  CHECK(old.size() == 8);
  CHECK(*std::max_element(old.begin(), old.end()) == 9);
  CHECK(graft::replay_batches(7, 3, 4, 2, generator).size() == 2);
  CHECK(graft::replay_batches(7, 0, 4, 0, generator).size() == 2);
  CHECK_THROWS_AS(graft::replay_batches(7, 3, 1, 0, generator), graft::ValueError);
  graft::LogitCache<double> cache;
  Index calls = 0;
  const auto compute = [&] { return Wide::full({2}, static_cast<double>(++calls)); };
  CHECK(cache.get(0, 5, compute)[0] == 1);
  CHECK(cache.get(1, 5, compute)[0] == 2);
  CHECK(cache.get(0, 5, compute)[0] == 1);
  cache.drop(5);
  CHECK(cache.size() == 0);
}
