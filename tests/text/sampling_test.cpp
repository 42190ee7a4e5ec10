#include "graft/text/sampling.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <set>
#include <vector>

using graft::Index;
using namespace graft::text;

TEST_CASE("Orders are permutations and depend on the seed alone") {
  for (const Index count : {0, 1, 2, 17, 1000}) {
    std::vector<Index> order = shuffled(count, 5);
    CHECK(order == shuffled(count, 5));
    std::sort(order.begin(), order.end());
    for (Index i = 0; i < count; ++i) REQUIRE(order[static_cast<std::size_t>(i)] == i);
  }
  CHECK(shuffled(100, 1) != shuffled(100, 2));
  CHECK(epoch_order(100, 1, 0) != epoch_order(100, 1, 1));
  CHECK(epoch_order(100, 1, 1) == epoch_order(100, 1, 1));
  CHECK_THROWS_AS(shuffled(-1, 0), graft::ValueError);
}

TEST_CASE("The order is the same on every platform") {
  // mt19937_64 is fixed by the standard, the rest is ours: these are the values to keep.
  CHECK(shuffled(8, 42) == shuffled(8, 42));
  std::mt19937_64 generator(42);
  std::vector<Index> by_hand{0, 1, 2, 3, 4, 5, 6, 7};
  for (std::size_t i = 8; i > 1; --i) std::swap(by_hand[i - 1], by_hand[generator() % i]);
  CHECK(shuffled(8, 42) == by_hand);  // no draw was in the rejected tail
}

TEST_CASE("Every order of three is equally likely") {
  std::map<std::vector<Index>, int> counts;
  for (std::uint64_t seed = 0; seed < 6000; ++seed) ++counts[epoch_order(3, seed, seed * 3)];
  REQUIRE(counts.size() == 6);
  for (const auto& [order, count] : counts) CHECK(std::abs(count - 1000) < 150);
}

TEST_CASE("A held-out part has the asked size, at least one, and shares nothing with training") {
  for (const Index count : {2, 3, 10, 999}) {
    for (const double fraction : {0.0, 0.001, 0.1, 0.5, 0.99}) {
      const HeldOutSplit split = split_held_out(count, fraction, 7);
      std::set<Index> all(split.train.begin(), split.train.end());
      all.insert(split.held_out.begin(), split.held_out.end());
      CHECK(static_cast<Index>(all.size()) == count);
      CHECK(static_cast<Index>(split.train.size() + split.held_out.size()) == count);
      CHECK_FALSE(split.train.empty());
      CHECK(split.held_out.empty() == (fraction == 0));
      CHECK(std::is_sorted(split.train.begin(), split.train.end()));
    }
  }
  CHECK(split_held_out(999, 0.1, 1).held_out.size() == 100);
  CHECK(split_held_out(99, 0.1, 1).held_out != split_held_out(99, 0.1, 2).held_out);
  CHECK_THROWS_AS(split_held_out(10, 1.0, 1), graft::ValueError);
  CHECK_THROWS_AS(split_held_out(10, -0.1, 1), graft::ValueError);
  CHECK_THROWS_AS(split_held_out(1, 0.5, 1), graft::ValueError);
}
