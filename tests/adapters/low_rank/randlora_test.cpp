#include "graft/adapters/low_rank/randlora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicRandLoRA;
using graft::RandLoRA;

TEST_CASE("RandLoRA begins as the identity, differentiates and merges") {
  CHECK(checks::change_at_init<BasicRandLoRA<double>>({.rank = 4, .alpha = 8}) < 1e-13);
  for (const bool wide : {false, true}) {
    const graft::Index out = wide ? 13 : 7, in = wide ? 7 : 13;
    CHECK(checks::gradient_error<BasicRandLoRA<double>>({.rank = 3, .alpha = 1}, out, in) < 1e-7);
    CHECK(checks::merge_error<RandLoRA>({.rank = 3, .alpha = 1}, out, in) < 1e-5);
    CHECK(checks::trained<RandLoRA>({.rank = 3}, out, in) == 3 * (3 + 7));  // n = ⌈7 / 3⌉
  }
  CHECK_THROWS_WITH(checks::trained<RandLoRA>({.rank = 0}), Catch::Contains("rank 0"));
}

TEST_CASE("RandLoRA draws its bases in bfloat16 as PEFT does") {
  const auto layer = checks::random_layer<float>(70, 50, 1);
  const auto method =
      checks::make<RandLoRA>({.rank = 6, .projection_prng_key = 3}, checks::site_of(layer));
  const auto list = method.tensors();
  CHECK(list[2].parameter.value()[0] == -1.65625f);
  CHECK(list[2].parameter.value()[1] == -1.3125f);
  double sum = 0;
  for (float v : list[3].parameter.value()) sum += static_cast<double>(v);
  CHECK(sum == Approx(-63.94271183));
}

TEST_CASE("RandLoRA's sparse bases hold three values of unit deviation") {
  const auto layer = checks::random_layer<float>(40, 60, 1);
  const auto method =
      checks::make<RandLoRA>({.rank = 8, .very_sparse = true}, checks::site_of(layer));
  const auto b = method.tensors()[3].parameter.value();
  double high = 0, squares = 0;
  for (float v : b) high = std::max(high, static_cast<double>(v));
  for (float v : b) {
    squares += static_cast<double>(v) * static_cast<double>(v);
    CHECK((v == 0 || std::abs(std::abs(static_cast<double>(v)) - high) < 1e-6));
  }
  CHECK(squares / static_cast<double>(b.size()) == Approx(1).epsilon(0.02));
}
