#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/mixtures/esft.hpp"
#include "graft/adapters/mixtures/mbc.hpp"

using graft::BasicTensor;
using graft::Index;

TEST_CASE("ESFT selects the shortest beginning of the scores that is enough") {
  const auto gates =
      BasicTensor<double>::from(std::vector<double>{0.7, 0.3, 0, 0, 0.6, 0, 0.4, 0}, {1, 2, 1, 4});
  const auto gate = graft::esft::gate_scores(gates);
  CHECK(gate(0, 0) == Approx(0.65));
  CHECK(gate(0, 2) == Approx(0.2));
  const auto token = graft::esft::token_scores(gates, 2);
  CHECK(token(0, 0) == Approx(0.5));
  CHECK(token(0, 1) == Approx(0.25));
  CHECK(token(0, 3) == 0);
  using List = std::vector<std::vector<Index>>;
  CHECK(graft::esft::select_experts(gate, 0.65) == List{{0}});
  CHECK(graft::esft::select_experts(gate, 0.66) == List{{0, 2}});
  CHECK(graft::esft::select_experts(token, 0.6) == List{{0, 1}});
  CHECK(graft::esft::select_experts(gate, 1) == List{{0, 1, 2}});
  CHECK_THROWS_AS(graft::esft::select_experts(gate, 0.0), graft::ValueError);
  CHECK_THROWS_AS(graft::esft::gate_scores(gate), graft::ShapeError);
  CHECK_THROWS_AS(graft::esft::token_scores(gates, 0), graft::ValueError);
}

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
