#include "graft/adapters/low_rank/eva.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::Index;

TEST_CASE("incremental PCA of batches is the PCA of all when nothing is cut off") {
  const Index in = 5;
  graft::IncrementalPca<double> pca(in);
  const auto all = checks::random_tensor<double>({21, in}, 3);
  for (Index first = 0; first < 21; first += 7) CHECK(pca.add(all.slice_rows(first, 7)));
  auto centred = all.clone();
  for (Index i = 0; i < in; ++i) {
    double mean = 0;
    for (Index r = 0; r < 21; ++r) mean += all(r, i) / 21;
    for (Index r = 0; r < 21; ++r) centred(r, i) -= mean;
  }
  const auto d = graft::svd(centred);
  double total = 0;
  for (Index k = 0; k < in; ++k) {
    CHECK(pca.singular_values()[k] == Approx(d.s[k]));
    double cosine = 0;
    for (Index i = 0; i < in; ++i) cosine += pca.components()(k, i) * d.v(i, k);
    CHECK(std::abs(cosine) == Approx(1));
    total += pca.explained()[static_cast<std::size_t>(k)];
  }
  CHECK(total == Approx(1));
  CHECK_FALSE(pca.add(all.slice_rows(0, 4)));
  CHECK_THROWS_AS(pca.add(checks::random_tensor<double>({9, 6}, 1)), graft::ShapeError);
}

TEST_CASE("EVA gives ranks to the layers that they explain most of") {
  CHECK(graft::eva_ranks({{0.5, 0.2, 0.1}, {0.4, 0.3, 0.25}, {0.05, 0.01, 0.0}}, 4) ==
        std::vector<Index>{1, 3, 0});
  CHECK(graft::eva_ranks({{0.5, 0.5}, {0.5, 0.5}}, 3) == std::vector<Index>{2, 1});
}
