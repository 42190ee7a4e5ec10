#include "graft/compose/lae.hpp"

#include <catch2/catch.hpp>

using Wide = graft::BasicTensor<double>;

TEST_CASE("LAE: the offline copy follows the online one and can be asked in its place") {
  const graft::BasicParameter<double> online(Wide::from({1, 2}, {2}));
  graft::OfflineCopy<double> offline({online}, 0.75), still({online}, 1);
  CHECK(offline.values()[0][1] == 2);
  online.assign(Wide::from({5, 2}, {2}));
  for (auto* copy : {&offline, &still}) copy->accumulate();
  CHECK(offline.values()[0][0] == 2);
  CHECK(still.values()[0][0] == 1);
  CHECK(offline.evaluate([&] { return online.value()[0]; }) == 2);
  CHECK(online.value()[0] == 5);
  CHECK(offline.values()[0][0] == 2);
  const auto fail = [&]() -> int { throw graft::ValueError("no"); };
  CHECK_THROWS_AS(offline.evaluate(fail), graft::ValueError);
  CHECK(online.value()[0] == 5);
  online.assign(Wide::zeros({3}));
  CHECK_THROWS_AS(offline.accumulate(), graft::ShapeError);
  CHECK_THROWS_AS(graft::OfflineCopy<double>({online}, 2), graft::ValueError);
}

TEST_CASE("LAE: the ensemble is symmetric and takes the surer copy for each class") {
  const auto a = Wide::from({4, 0, 0, 7}, {1, 4}), b = Wide::from({0, 1, 0, -7}, {1, 4});
  const auto p = graft::lae_ensemble(a, b, 3), q = graft::lae_ensemble(b, a, 3);
  CHECK(std::equal(p.begin(), p.end(), q.begin()));
  CHECK(p[0] == graft::class_probabilities(a, 3)[0]);
  CHECK(p[1] == graft::class_probabilities(b, 3)[1]);
  CHECK_THROWS_AS(graft::lae_ensemble(a, Wide::zeros({1, 3})), graft::ShapeError);
}
