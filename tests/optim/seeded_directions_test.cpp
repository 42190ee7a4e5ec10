#include "graft/optim/seeded_directions.hpp"

#include <catch2/catch.hpp>

using graft::Index;

TEST_CASE("Directions of a seed: the same again, of the right variance and within bounds") {
  CHECK(graft::normal_direction(3, 100) == graft::normal_direction(3, 100));
  CHECK(graft::normal_direction(3, 100) != graft::normal_direction(4, 100));
  // Whoever replays a run has the seeds alone. Numbers of torch's generator.
  CHECK(graft::normal_direction(3, 100)[0] == Approx(-0.07664429396390915));
  CHECK(graft::normal_direction(3, 100)[99] == Approx(0.4042048156261444));
  CHECK(graft::truncated_normal_direction(3, 100)[0] == Approx(-0.09317836086989591));
  CHECK(graft::truncated_normal_direction(3, 100)[99] == Approx(-0.010525567983007834));
  const auto z = graft::normal_direction(1, 20000);
  double square = 0;
  for (const double v : z) square += v * v / 20000;
  CHECK(square == Approx(1).margin(0.05));
  const auto t = graft::truncated_normal_direction(1, 20000);
  double spread = 0;
  for (const double v : t) {
    CHECK(std::abs(v) <= 1 / std::sqrt(20000.0));
    spread += v * v;
  }
  CHECK(spread == Approx(1.0 / 3).margin(0.02));
}

TEST_CASE("Parameters as one vector") {
  const graft::Parameter a(graft::Tensor::from(std::vector<float>{1, 2, 3, 4}, {2, 2})),
      b(graft::Tensor::full({1}, 5));
  CHECK(graft::flat_values<float>({a, b}) == std::vector<double>{1, 2, 3, 4, 5});
  graft::set_flat_values<float>({b, a}, std::vector<double>{9, 8, 7, 6, 5});
  CHECK(b.value()[0] == 9);
  CHECK(a.value()(1, 1) == 5);
  CHECK_THROWS_AS(graft::set_flat_values<float>({a}, std::vector<double>(5)), graft::ShapeError);
}
