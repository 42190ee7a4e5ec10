#include "graft/train/co_serving.hpp"

#include <catch2/catch.hpp>
#include <random>

using graft::CoServingSchedule;
using graft::Index;

namespace {

/// 10 ms, 1 ms a token of inference and 2 ms a token of fine-tuning.
const CoServingSchedule& linear_costs() {
  static const CoServingSchedule schedule({0, 8, 32}, {0, 4, 64},
                                          {10, 18, 138, 18, 26, 146, 42, 50, 170});
  return schedule;
}

}  // namespace

TEST_CASE("Latencies between measured points are interpolated in both directions") {
  const auto& schedule = linear_costs();
  for (const Index c : {0, 1, 8, 13, 32})
    for (const Index s : {0, 3, 4, 5, 63, 64})
      CHECK(schedule.latency(c, s) == Approx(10.0 + static_cast<double>(c + 2 * s)));
}

TEST_CASE("As many tokens of fine-tuning run as the limit leaves room for beside inference") {
  const auto& schedule = linear_costs();
  CHECK(schedule.fine_tuning_tokens(0, 50) == 20);
  CHECK(schedule.fine_tuning_tokens(10, 50) == 15);
  CHECK(schedule.fine_tuning_tokens(9, 50) == 15);   // 49 ms, and 51 with one more
  CHECK(schedule.fine_tuning_tokens(0, 1e9) == 64);  // no more than was measured
  CHECK(schedule.fine_tuning_tokens(32, 42) == 0);
}

TEST_CASE("Under full load, and beyond what was measured, no token of fine-tuning runs") {
  const auto& schedule = linear_costs();
  CHECK(schedule.fine_tuning_tokens(32, 30) == 0);
  CHECK(schedule.fine_tuning_tokens(33, 1e9) == 0);
}

TEST_CASE("A noisy table never lets more tokens run under more load or a lower limit") {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> noise(5, 60);
  std::vector<double> latencies(12);
  for (double& value : latencies) value = noise(random);
  const CoServingSchedule schedule({0, 4, 16, 64}, {0, 16, 128}, latencies);
  for (const double limit : {10.0, 30.0, 55.0}) {
    Index before = 1000;
    for (Index c = 0; c <= 64; ++c) {
      const Index tokens = schedule.fine_tuning_tokens(c, limit);
      CHECK(tokens <= before);
      CHECK(tokens <= schedule.fine_tuning_tokens(c, limit + 5));
      before = tokens;
    }
  }
}

TEST_CASE("A table that is no table is refused with the reason") {
  CHECK_THROWS_WITH(CoServingSchedule({1, 2}, {0}, {1, 2}), Catch::Contains("begin with 0"));
  CHECK_THROWS_WITH(CoServingSchedule({0, 2, 2}, {0}, {1, 2, 3}), Catch::Contains("2, 2"));
  CHECK_THROWS_WITH(CoServingSchedule({0, 2}, {0, 1}, {1, 2, 3}), Catch::Contains("3 latencies"));
  CHECK_THROWS_WITH(CoServingSchedule({0}, {0, 1}, {1, -2}), Catch::Contains("-2"));
  CHECK_THROWS_WITH(linear_costs().latency(-1, 0), Catch::Contains("-1"));
}
