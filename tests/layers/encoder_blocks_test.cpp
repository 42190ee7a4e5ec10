#include "graft/layers/encoder_blocks.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;

namespace {

graft::MultiHeadAttention<double> attention() {
  graft::MultiHeadAttention<double> a;
  a.query = {"query", checks::random_layer<double>(8, 6, 1)};
  a.key = {"key", checks::random_layer<double>(8, 6, 2)};
  a.value = {"value", checks::random_layer<double>(8, 6, 3)};
  a.site = {"attention", 0, 2, 2, 4};
  return a;
}

}  // namespace

TEST_CASE("An encoder's attention sees every real key and no masked one") {
  const auto a = attention();
  auto x = checks::random_tensor<double>({2 * 4, 6}, 4);
  graft::EncoderPass<double> pass{.batch = 2};
  pass.key_mask = std::make_shared<const std::vector<unsigned char>>(
      std::vector<unsigned char>{1, 1, 1, 0, 1, 1, 1, 1});
  const auto run = [&] {
    graft::BasicTape<double> tape({.gradients = false});
    return a(tape.constant(x), pass).value().clone();
  };
  const auto before = run();
  x(3, 2) += 1;  // masked: only its own query changes
  const auto masked = run();
  CHECK(std::equal(before.begin(), before.begin() + 3 * 8, masked.begin()));
  CHECK(std::equal(before.begin() + 4 * 8, before.end(), masked.begin() + 4 * 8));
  x(7, 2) += 1;  // real: every query of its row changes
  const auto real = run();
  for (Index t = 4; t < 8; ++t)
    CHECK_FALSE(
        std::equal(masked.begin() + t * 8, masked.begin() + (t + 1) * 8, real.begin() + t * 8));
  CHECK(std::equal(masked.begin(), masked.begin() + 4 * 8, real.begin()));
}

TEST_CASE("Gradients of an encoder's attention and feed-forward agree with differences") {
  const auto a = attention();
  graft::Mlp<double> mlp;
  mlp.up = {"up", checks::random_layer<double>(9, 8, 5)};
  mlp.down = {"down", checks::random_layer<double>(6, 9, 6)};
  const graft::BasicParameter<double> x(checks::random_tensor<double>({2 * 3, 6}, 4));
  const auto loss = [&](graft::BasicTape<double>& tape) {
    return sum(square(mlp(a(tape.parameter(x), {.batch = 2}))));
  };
  CHECK(graft::gradient_check(loss, {x}).relative_error < 1e-7);
}
