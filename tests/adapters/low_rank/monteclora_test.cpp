#include "graft/adapters/low_rank/monteclora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicMonteCLoRA;
using graft::ConfigValue;
using graft::Index;
using graft::LoRAConfig;

namespace {

LoRAConfig monteclora_config(bool entropy = false) {
  LoRAConfig config{.rank = 3, .alpha = 6};
  config.monteclora_config = ConfigValue::Map{{"num_samples", 4},
                                              {"sample_scaler", 0.5},
                                              {"kl_loss_weight", 1.0},
                                              {"use_entropy", entropy}};
  return config;
}

}  // namespace

TEST_CASE("MonteCLoRA is LoRA outside of training and random in it") {
  CHECK(checks::change_at_init<BasicMonteCLoRA<double>>(monteclora_config()) == 0);
  CHECK(checks::merge_error<BasicMonteCLoRA<float>>(monteclora_config()) < 1e-5);
  CHECK(checks::trained<BasicMonteCLoRA<float>>(monteclora_config()) == 3 * (10 + 12 + 1) + 4);
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto method =
      checks::make<BasicMonteCLoRA<double>>(monteclora_config(), checks::site_of(layer));
  checks::randomize(method);
  const auto x = checks::random_tensor<double>({5, 12}, 2);
  const auto run = [&](std::uint64_t seed) {
    graft::BasicTape<double> tape({.seed = seed});
    return method.apply(layer, tape.constant(x)).value();
  };
  CHECK(checks::relative_error(run(1), run(1)) == 0);
  CHECK(checks::relative_error(run(1), run(2)) > 1e-3);
}

TEST_CASE("gradients of MonteCLoRA and of its loss agree with differences") {
  CHECK(checks::gradient_error<BasicMonteCLoRA<double>>(monteclora_config()) < 1e-7);
  const auto layer = checks::random_layer<double>(10, 12, 1);
  for (const bool entropy : {false, true}) {
    const auto method =
        checks::make<BasicMonteCLoRA<double>>(monteclora_config(entropy), checks::site_of(layer));
    checks::randomize(method);
    std::vector<graft::BasicParameter<double>> parameters;
    for (const auto& t : method.tensors())
      if (t.parameter.trainable() && t.name.find("prior") != std::string::npos)
        parameters.push_back(t.parameter);
    REQUIRE(parameters.size() == 2);
    const auto x = checks::random_tensor<double>({5, 12}, 2);
    CHECK(graft::gradient_check(
              [&](graft::BasicTape<double>& tape) {
                method.apply(layer, tape.constant(x));
                return method.auxiliary_loss(tape);
              },
              parameters)
              .relative_error < 1e-7);
  }
}

TEST_CASE("digamma and its slope have their known values") {
  const auto [one, slope] = graft::detail::digamma_and_slope(1);
  CHECK(one == Approx(-0.57721566490153286).epsilon(1e-10));
  CHECK(slope == Approx(1.6449340668482264).epsilon(1e-10));
  const auto [half, half_slope] = graft::detail::digamma_and_slope(0.5);
  CHECK(half == Approx(-1.9635100260214235).epsilon(1e-10));
  CHECK(half_slope == Approx(4.934802200544679).epsilon(1e-10));
}
