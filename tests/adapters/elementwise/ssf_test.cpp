#include "graft/adapters/elementwise/ssf.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicSSF;
using graft::SSF;
using graft::SSFConfig;

TEST_CASE(
    "SSF begins near the identity, or as the identity if asked to, and folds into the layer") {
  SSFConfig exact;
  exact.exact_identity = true;
  CHECK(checks::change_at_init<BasicSSF<double>>(exact) == 0);
  const double change = checks::change_at_init<BasicSSF<double>>({});
  CHECK(change > 0);
  CHECK(change < 0.2);
  CHECK(checks::gradient_error<BasicSSF<double>>({}, 7, 13) < 1e-8);
  for (const bool bias : {true, false}) CHECK(checks::merge_error<SSF>({}, 9, 5, bias) < 1e-5);
  CHECK(checks::trained<SSF>({}, 10, 12) == 20);
  SSFConfig bad;
  bad.init_std = -1;
  CHECK_THROWS_AS(checks::trained<SSF>(bad), graft::ValueError);
}

TEST_CASE("SSF folds into a LayerNorm, and into an RMSNorm while it does not shift") {
  graft::TorchGenerator generator(3);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  for (const bool rms : {false, true}) {
    graft::BasicNorm<double> norm;
    norm.rms = rms;
    norm.weight = checks::random_tensor<double>({6}, 1);
    if (!rms) norm.bias = checks::random_tensor<double>({6}, 2);
    if (rms) norm.weight_offset = 1;
    graft::BasicSSFNorm<double> method({}, {"norm", norm, 6}, context);
    if (rms) {
      CHECK_FALSE(method.merged(norm));
      method.tensors()[1].parameter.assign(graft::BasicTensor<double>::zeros({6}));
    }
    const auto merged = method.merged(norm);
    REQUIRE(merged);
    graft::BasicTape<double> tape({.gradients = false});
    const auto x = tape.constant(checks::random_tensor<double>({4, 6}, 5));
    CHECK(checks::relative_error((*merged)(x).value(), method.apply(norm, x).value()) < 1e-12);
  }
}
