#include "graft/adapters/elementwise/ln_tuning.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("LN tuning begins as the frozen norm and replaces it when merged") {
  graft::BasicNorm<float> norm;
  norm.weight = checks::random_tensor<float>({6}, 1);
  norm.bias = checks::random_tensor<float>({6}, 2);
  norm.rms = false;
  graft::StandaloneInit<float> init(3);
  const auto part = graft::LNTuningMethod<float>::norm({}, {"norm", norm, 6}, init.context());
  const auto x = checks::random_tensor<float>({4, 6}, 4);
  graft::Tape tape({.gradients = false, .training = false});
  CHECK(checks::relative_error(part->apply(norm, tape.constant(x)).value(),
                               norm(tape.constant(x)).value()) == 0);
  CHECK(graft::trainable_elements(part->tensors()) == 12);
  part->tensors()[0].parameter.assign(checks::random_tensor<float>({6}, 5));
  part->tensors()[1].parameter.assign(checks::random_tensor<float>({6}, 6));
  const auto merged = part->merged(norm);
  REQUIRE(merged);
  const auto y = part->apply(norm, tape.constant(x)).value();
  CHECK(checks::relative_error((*merged)(tape.constant(x)).value(), y) < 1e-6);
  CHECK(checks::relative_error(norm(tape.constant(x)).value(), y) > 0.01);
}
