#include "graft/optim/fed_kseed.hpp"

#include <catch2/catch.hpp>

using graft::Index;
using Parameter = graft::BasicParameter<double>;

namespace {

Parameter start() {
  return Parameter(graft::BasicTensor<double>::from(std::vector<double>{1, 1, -0.3, 0}, {4}));
}
double loss(const Parameter& p, double centre) {
  double total = 0;
  for (const double v : p.value()) total += (v - centre) * (v - centre);
  return total;
}

}  // namespace

TEST_CASE("FedKSeed: rebuilding from sums equals the steps one after the other") {
  const graft::FedKSeedConfig config{
      .num_seeds = 16, .local_steps = 40, .eps = 1e-3, .learning_rate = 0.02};
  const auto client = start(), server = start();
  const graft::BasicFedKSeed<double> local({client}, config), global({server}, config);
  graft::TorchGenerator generator(1);
  Index called = 0;
  const auto records = local.local_round(
      [&](Index step) {
        CHECK(step == called++ / 2);
        return loss(client, 2);
      },
      generator);
  CHECK(called == 80);
  CHECK(loss(client, 2) < 0.5 * loss(server, 2));
  std::vector<double> accumulator(16, 0);
  graft::accumulate_records(accumulator, {records}, std::vector<double>{1});
  global.rebuild(accumulator);
  for (Index i = 0; i < 4; ++i) CHECK(server.value()[i] == Approx(client.value()[i]));
  // Two clients count with their shares.
  std::vector<double> half(16, 0);
  graft::accumulate_records(half, {records, records}, std::vector<double>{0.25, 0.25});
  for (std::size_t j = 0; j < 16; ++j) CHECK(half[j] == Approx(accumulator[j] / 2));
}

TEST_CASE("FedKSeed-Pro draws candidates by their magnitudes; a clipped g") {
  const auto p = graft::candidate_probabilities(std::vector<double>{1, 3, 2});
  CHECK(p[1] / p[0] == Approx(std::exp(1.0)));
  CHECK(p[2] / p[0] == Approx(std::exp(0.5)));
  CHECK(graft::candidate_probabilities(std::vector<double>{2, 2})[0] == 0.5);
  const auto means = graft::mean_magnitudes({{{0, 2}, {2, -1}}, {{0, -4}}}, 3);
  CHECK(means == std::vector<double>{3, 0, 1});
  const auto w = start();
  const graft::BasicFedKSeed<double> method(
      {w}, {.num_seeds = 3, .local_steps = 50, .learning_rate = 0, .clip = 1e-3});
  graft::TorchGenerator generator(5);
  for (const auto& r : method.local_round([&](Index) { return loss(w, 2); }, generator,
                                          std::vector<double>{0, 1, 0})) {
    CHECK(r.candidate == 1);
    CHECK(std::abs(r.gradient) == 1e-3);
  }
  CHECK_THROWS_AS(method.local_step([] { return 0.0; }, 3), graft::ValueError);
  CHECK_THROWS_AS(method.rebuild(std::vector<double>(2)), graft::ShapeError);
  CHECK_THROWS_AS(graft::BasicFedKSeed<double>({w}, {.num_seeds = 0}), graft::ValueError);
}
