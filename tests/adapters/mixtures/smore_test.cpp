#include "graft/adapters/mixtures/smore.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

namespace {

using M = graft::BasicSMoRE<double>;

graft::SMoREConfig small(const char* gate) {
  return {.rank = {2, 3},
          .num_experts = {3, 4},
          .fanout = {2, 2},
          .gate_dim = 5,
          .down_proj_dim = 6,
          .gate_type = gate};
}

/// Worst relative error of the gradients of output and auxiliary loss, in training with given
/// noise.
double gradient_error(const graft::SMoREConfig& config, std::vector<BasicTensor<double>> noise) {
  const auto layer = checks::random_layer<double>(9, 11, 3);
  auto method = checks::make<M>(config, checks::site_of(layer));
  checks::randomize(method, 0.5);
  method.set_noise(std::move(noise));
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(checks::random_tensor<double>({5, 11}, 4))};
  for (auto& t : method.tensors()) parameters.push_back(t.parameter);
  const auto weights = checks::random_tensor<double>({5, 9}, 5);
  return graft::gradient_check(
             [&](BasicTape<double>& tape) {
               const auto y = method.apply(layer, tape.parameter(parameters[0]));
               return add(sum(mul(y, tape.constant(weights))), method.auxiliary_loss(tape));
             },
             parameters, 1e-6)
      .relative_error;
}

}  // namespace

TEST_CASE("S'MoRE begins as the identity, counts, differentiates and does not merge") {
  for (const char* gate : {"noisy_topk", "switch"}) {
    auto config = small(gate);
    CHECK(checks::change_at_init<M>(config) == 0);
    config.init_weights = "b_zero";
    CHECK(checks::change_at_init<M>(config) < 1e-12);
    config.init_weights = "normal";
    CHECK(checks::change_at_init<M>(config) > 1e-6);
    config.balance_loss_weight = 1;
    CHECK(gradient_error(config, {checks::random_tensor<double>({10, 3}, 8),
                                  checks::random_tensor<double>({5, 4}, 9)}) < 1e-4);
    CHECK_THROWS_WITH(checks::merge_error<graft::SMoRE>(config), Catch::Contains("token"));
  }
  // The card's count, and the noise weights.
  const graft::SMoREConfig standard;
  CHECK(checks::trained<graft::SMoRE>(standard, 768, 768) == 134816 + 4 * 32 + 4 * 64);
}

TEST_CASE("one level without an activation is a mixture of LoRAs with a shared projection") {
  graft::SMoREConfig config{.rank = {3}, .num_experts = {4}, .fanout = {4}};
  config.act_fn = "identity";
  const auto layer = checks::random_layer<double>(9, 11, 3);
  const auto method = checks::make<M>(config, checks::site_of(layer));
  checks::randomize(method);
  // With all keys equal every expert has the same share.
  std::map<std::string, BasicTensor<double>> tensors;
  for (auto& t : method.tensors()) {
    if (t.name.ends_with("keys")) t.parameter.assign(BasicTensor<double>::ones({4, 32}));
    tensors[t.name] = t.parameter.value();
  }
  const auto x = checks::random_tensor<double>({1, 11}, 4);
  auto z = BasicTensor<double>::zeros({1, 12});
  for (Index e = 0; e < 4; ++e)
    for (Index o = 0; o < 12; ++o) {
      double value = tensors["smore.0.B_bias"][e * 12 + o];
      for (Index k = 0; k < 3; ++k) {
        double low = tensors["smore.0.A_bias"][e * 3 + k];
        for (Index i = 0; i < 11; ++i) low += tensors["smore.0.A"][(e * 3 + k) * 11 + i] * x[i];
        value += tensors["smore.0.B"][(e * 12 + o) * 3 + k] * low;
      }
      z[o] += value / 4;
    }
  auto expected = checks::base_output(layer, x).clone();
  for (Index o = 0; o < 9; ++o) {
    expected[o] += tensors["smore.final.bias"][o];
    for (Index j = 0; j < 12; ++j) expected[o] += tensors["smore.final.weight"](o, j) * z[j];
  }
  CHECK(checks::relative_error(checks::output(method, layer, x), expected) < 1e-12);
}

TEST_CASE("noise moves the choice while training and nothing else") {
  auto config = small("noisy_topk");
  config.init_weights = "normal";
  const auto layer = checks::random_layer<double>(9, 11, 3);
  const auto method = checks::make<M>(config, checks::site_of(layer));
  const auto x = checks::random_tensor<double>({20, 11}, 4);
  const auto train = [&](std::uint64_t seed) {
    BasicTape<double> tape({.gradients = false, .seed = seed});
    return method.apply(layer, tape.constant(x)).value().clone();
  };
  CHECK(checks::relative_error(train(1), train(1)) == 0);
  CHECK(checks::relative_error(train(1), train(2)) > 1e-6);
  CHECK(checks::relative_error(checks::output(method, layer, x),
                               checks::output(method, layer, x)) == 0);
}

TEST_CASE("S'MoRE refuses trees that cannot be") {
  CHECK_THROWS_WITH((graft::SMoREConfig{.num_experts = {4}}.validate()), Catch::Contains("levels"));
  CHECK_THROWS_WITH((graft::SMoREConfig{.fanout = {5, 2}}.validate()), Catch::Contains("fanout 5"));
  CHECK_THROWS_WITH((graft::SMoREConfig{.gate_type = "hash"}.validate()), Catch::Contains("hash"));
}
