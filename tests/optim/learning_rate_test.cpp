#include "graft/optim/learning_rate.hpp"

#include <catch2/catch.hpp>

using graft::learning_rate_ratio;
using graft::Schedule;

TEST_CASE("the warmup rises evenly and no step has rate zero") {
  const graft::LearningRateConfig config{Schedule::constant, 4, 0};
  CHECK(learning_rate_ratio(config, 0, 10) == Approx(0.2));
  CHECK(learning_rate_ratio(config, 3, 10) == Approx(0.8));
  CHECK(learning_rate_ratio(config, 4, 10) == 1);
  CHECK(learning_rate_ratio(config, 9, 10) == 1);
}

TEST_CASE("linear and cosine fall from one to the final share") {
  const graft::LearningRateConfig linear{Schedule::linear, 2, 0.1}, cosine{Schedule::cosine, 0, 0};
  CHECK(learning_rate_ratio(linear, 2, 12) == 1);
  CHECK(learning_rate_ratio(linear, 7, 12) == Approx(0.55));
  CHECK(learning_rate_ratio(linear, 12, 12) == Approx(0.1));
  CHECK(learning_rate_ratio(cosine, 5, 10) == Approx(0.5));
  CHECK(learning_rate_ratio(cosine, 2, 8) == Approx(0.5 + 0.5 * std::sqrt(0.5)));
  CHECK(learning_rate_ratio(cosine, 10, 10) == Approx(0).margin(1e-15));
  CHECK(learning_rate_ratio(cosine, 99, 10) == Approx(0).margin(1e-15));
}

TEST_CASE("a warmup as long as the run leaves nothing to divide by") {
  CHECK(learning_rate_ratio({Schedule::linear, 5, 0}, 5, 5) == 1);
}

TEST_CASE("schedules have names") {
  CHECK(graft::schedule_named("cosine") == Schedule::cosine);
  CHECK(graft::schedule_name(Schedule::linear) == "linear");
  CHECK_THROWS_WITH(graft::schedule_named("step"), Catch::Contains("constant, linear, cosine"));
}
