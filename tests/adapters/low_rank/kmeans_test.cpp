#include "graft/adapters/low_rank/kmeans.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("distinct_rows draws as numpy's RandomState does") {
  graft::TorchGenerator generator(5);
  CHECK(graft::detail::distinct_rows(generator, 10, 6) ==
        std::vector<graft::Index>{2, 8, 9, 4, 6, 5});
}

TEST_CASE("k-means finds clusters that lie far apart, and every row has one") {
  auto rows = checks::random_tensor<double>({30, 4}, 1, 0.1);
  for (graft::Index i = 0; i < 30; ++i) rows(i, i % 3) += 5;
  const auto found = graft::kmeans_random(rows, 3, 10, 7);
  double inertia = 0;
  for (graft::Index i = 0; i < 30; ++i)
    for (graft::Index j = 0; j < 30; ++j) {
      const bool same =
          found.of_row[static_cast<std::size_t>(i)] == found.of_row[static_cast<std::size_t>(j)];
      // Two of three starting rows may lie in one cluster; then two clusters stay together.
      if (i % 3 == j % 3 && found.inertia < 10) CHECK(same);
      inertia += same ? 1 : 0;
    }
  CHECK(inertia >= 30);
  CHECK_THROWS_AS(graft::kmeans_random(rows, 0, 10, 7), graft::ValueError);
}

TEST_CASE("k-means with as many clusters as rows has no error left") {
  const auto rows = checks::random_tensor<double>({6, 3}, 2);
  CHECK(graft::kmeans_random(rows, 9, 10, 1).inertia < 1e-20);
}
