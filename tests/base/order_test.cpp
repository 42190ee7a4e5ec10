#include "graft/base/order.hpp"

#include <catch2/catch.hpp>
#include <cstddef>
#include <limits>
#include <vector>

#include "graft/base/rng.hpp"

using graft::Index;

TEST_CASE("Orders hold every number once, go one way, and leave equal keys as they were") {
  graft::TorchGenerator generator(11);
  for (const Index n : {0, 1, 2, 33, 500}) {
    std::vector<double> keys;
    for (Index i = 0; i < n; ++i) keys.push_back(static_cast<double>(generator.randint(-9, 9)) / 3);
    const auto up = graft::smallest_first(keys), down = graft::largest_first(keys);
    REQUIRE(std::ssize(up) == n);
    REQUIRE(std::ssize(down) == n);
    std::vector<int> seen(keys.size(), 0);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      ++seen[static_cast<std::size_t>(up[i])];
      ++seen[static_cast<std::size_t>(down[i])];
      if (i == 0) continue;
      const double a = keys[static_cast<std::size_t>(up[i - 1])],
                   b = keys[static_cast<std::size_t>(up[i])],
                   c = keys[static_cast<std::size_t>(down[i - 1])],
                   d = keys[static_cast<std::size_t>(down[i])];
      REQUIRE((a < b || (a == b && up[i - 1] < up[i])));
      REQUIRE((c > d || (c == d && down[i - 1] < down[i])));
    }
    REQUIRE(seen == std::vector<int>(keys.size(), 2));
  }
}

TEST_CASE("Infinite keys take the ends of an order") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  REQUIRE(graft::largest_first(std::vector{0.0, infinity, -infinity}) ==
          std::vector<Index>{1, 0, 2});
  REQUIRE(graft::smallest_first(std::vector{0.0, infinity, -infinity}) ==
          std::vector<Index>{2, 0, 1});
}
