#include "graft/adapters/mixtures/mbc.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::Index;

TEST_CASE("MBC keeps large entries and puts tasks that are alike together") {
  const auto row = BasicTensor<double>::from(std::vector<double>{-4, 1, 3, -2}, {1, 4});
  const auto sparse = graft::mbc::sparsified(row, 0.5);  // of the sizes the median is 2.5
  CHECK((sparse[0] == -4 && sparse[1] == 0 && sparse[2] == 3 && sparse[3] == 0));
  const auto one = checks::random_tensor<double>({1, 30}, 1),
             two = checks::random_tensor<double>({1, 30}, 2);
  auto theta = BasicTensor<double>::empty({5, 30});
  for (Index t = 0; t < 5; ++t)
    for (Index i = 0; i < 30; ++i)
      theta(t, i) = (t % 2 == 0 ? one[i] : two[i]) * static_cast<double>(t + 1);
  const auto likeness = graft::mbc::similarities(graft::mbc::sparsified(theta, 0.4), 3);
  for (Index t = 0; t < 5; ++t) CHECK(likeness(t, t) == Approx(1));
  CHECK(likeness(0, 4) == Approx(1));
  CHECK(likeness(0, 1) < 0.9);
  const auto label = graft::mbc::clusters(likeness, {1, 0});
  CHECK(label == std::vector<Index>{1, 0, 1, 0, 1});
  const auto means = graft::mbc::cluster_means(theta, label, 2);
  CHECK(means(1, 3) == Approx(3 * one[3]));
  CHECK(means(0, 3) == Approx(3 * two[3]));
  CHECK_THROWS_AS(graft::mbc::clusters(likeness, {5}), graft::ValueError);
  CHECK_THROWS_AS(graft::mbc::sparsified(theta, 1.5), graft::ValueError);
  CHECK_THROWS_AS(graft::mbc::cluster_means(theta, {0}, 1), graft::ShapeError);
}

TEST_CASE("MBC takes the tightest clusters of several starts") {
  // Pairs on a line, near enough to each other for some starts to end with a pair apart.
  auto x = BasicTensor<double>::empty({12, 1});
  for (Index i = 0; i < 12; ++i) x[i] = static_cast<double>(i / 2 * 3 + i % 2);
  const auto found = [&](std::uint64_t seed, Index restarts) {
    graft::TorchGenerator generator(seed);
    const auto label = graft::mbc::best_clusters(x, 6, generator, restarts);
    std::vector<Index> seen;
    for (std::size_t i = 0; i < 12; i += 2) {
      if (label[i] != label[i + 1]) return false;
      seen.push_back(label[i]);
    }
    std::sort(seen.begin(), seen.end());
    return seen == std::vector<Index>{0, 1, 2, 3, 4, 5};
  };
  int with_one = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    CHECK(found(seed, 30));
    with_one += found(seed, 1) ? 1 : 0;
  }
  CHECK(with_one < 20);
  CHECK(with_one > 0);
  graft::TorchGenerator generator(1);
  const auto same = BasicTensor<double>::ones({4, 2});
  CHECK(graft::mbc::best_clusters(same, 3, generator) == std::vector<Index>{0, 0, 0, 0});
  CHECK_THROWS_AS(graft::mbc::best_clusters(x, 0, generator), graft::ValueError);
  x[3] = std::nan("");
  CHECK_THROWS_WITH(graft::mbc::best_clusters(x, 2, generator), Catch::Contains("not finite"));
}
