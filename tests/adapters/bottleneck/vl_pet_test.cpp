#include "graft/adapters/bottleneck/vl_pet.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

namespace {

using graft::Index;
using Gate = graft::BasicVLPETGate<double>;

graft::BasicTensor<double> run(const Gate& adapter, const graft::BasicTensor<double>& x,
                               const graft::BasicTensor<double>& h) {
  graft::BasicTape<double> tape({.gradients = false});
  const auto r = tape.constant(x);
  return adapter.apply(r, tape.constant(h), r).value().clone();
}

}  // namespace

TEST_CASE("VL-PET differentiates with every gate, and its gates have their sizes") {
  const Index d = 7, heads = 2, r = 4, g = 3;
  const Index adapter = 2 * d * r + r + d;
  const std::vector<std::pair<std::string, Index>> gates{{"large", 2 * d * g + g + d},
                                                         {"middleX", d + 1},
                                                         {"middleY", d},
                                                         {"small", 2 * d + 1},
                                                         {"none", 0}};
  for (const auto& [gate, size] : gates) {
    graft::StandaloneInit<double> init(3);
    const Gate module(
        {.adapter_dim = r, .num_heads = heads, .gate = gate, .gate_dim = g, .eta = 0.3}, d,
        init.context());
    CHECK(graft::trainable_elements(module.tensors()) == adapter + size);
    checks::randomize(module);
    std::vector<graft::BasicParameter<double>> parameters{
        graft::BasicParameter<double>(checks::random_tensor<double>({2, 3, d}, 4)),
        graft::BasicParameter<double>(checks::random_tensor<double>({2, 3, d}, 5))};
    for (const auto& t : module.tensors()) parameters.push_back(t.parameter);
    const auto weights = checks::random_tensor<double>({2, 3, d}, 6);
    const auto check = graft::gradient_check(
        [&](graft::BasicTape<double>& tape) {
          const auto x = tape.parameter(parameters[0]);
          return sum(
              mul(module.apply(x, tape.parameter(parameters[1]), x), tape.constant(weights)));
        },
        parameters);
    CHECK(check.relative_error < 1e-7);
  }
}

TEST_CASE("the gate small has one value a sample, whatever the other samples are") {
  graft::StandaloneInit<double> init(3);
  const Gate module({.adapter_dim = 4, .num_heads = 1, .gate = "small"}, 5, init.context());
  checks::randomize(module);
  const auto x = checks::random_tensor<double>({2, 3, 5}, 4),
             h = checks::random_tensor<double>({2, 3, 5}, 5);
  const auto second = [](const graft::BasicTensor<double>& t) {
    auto part = graft::BasicTensor<double>::empty({1, 3, 5});
    std::copy_n(t.begin() + 15, 15, part.begin());
    return part;
  };
  CHECK(checks::relative_error(run(module, second(x), second(h)), second(run(module, x, h))) <
        1e-14);
}

TEST_CASE("VL-PET refuses heads that do not divide and values without a place") {
  CHECK_THROWS_WITH((graft::VLPETConfig{.adapter_dim = 6, .num_heads = 4}.validate()),
                    Catch::Contains("do not divide"));
  CHECK_THROWS_WITH(graft::VLPETConfig{.gate = "tiny"}.validate(), Catch::Contains("'tiny'"));
  CHECK_THROWS_WITH(graft::VLPETConfig{.part = "decoder_value"}.validate(),
                    Catch::Contains("target_modules"));
}
