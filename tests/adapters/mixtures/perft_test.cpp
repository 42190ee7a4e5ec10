#include "graft/adapters/mixtures/perft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

namespace {

using Perft = graft::BasicPerft<double>;

Perft made(const graft::PerftConfig& config, Index width = 6) {
  graft::StandaloneInit<double> init(7);
  return Perft(config, width, 1, init.context());
}
BasicTensor<double> run(const Perft& method, const BasicTensor<double>& u,
                        const BasicTensor<double>& output) {
  BasicTape<double> tape({.gradients = false, .training = false});
  return method.apply(tape.constant(u), tape.constant(output)).value().clone();
}

}  // namespace

TEST_CASE("PERFT begins as the identity, counts and differentiates") {
  const auto u = checks::random_tensor<double>({5, 6}, 1),
             out = checks::random_tensor<double>({5, 6}, 2);
  for (const auto& [variant, experts, count] :
       {std::tuple{"routed", Index{3}, Index{3 * 6 * (2 * 2 + 1)}},
        std::tuple{"dense", Index{3}, Index{3 * 6 * 2 * 2}},
        std::tuple{"single", Index{1}, Index{6 * 2 * 2}}}) {
    const auto method =
        made({.variant = variant, .num_experts = experts, .rank = 2, .activation = "tanh"});
    CHECK(graft::trainable_elements(method.tensors()) == count);
    CHECK(checks::relative_error(run(method, u, out), out) == 0);
    checks::randomize(method);
    CHECK(checks::relative_error(run(method, u, out), out) > 1e-3);
    std::vector<graft::BasicParameter<double>> parameters{graft::BasicParameter<double>(u.clone())};
    for (auto& t : method.tensors()) parameters.push_back(t.parameter);
    CHECK(graft::gradient_check(
              [&](BasicTape<double>& tape) {
                const auto y = method.apply(tape.parameter(parameters[0]), tape.constant(out));
                const auto loss = sum(square(y));
                const auto extra = method.auxiliary_loss(tape);
                return extra ? add(loss, extra) : loss;
              },
              parameters)
              .relative_error < 1e-6);
  }
}

TEST_CASE("dense experts are one of all their widths, embedded ones follow the frozen gates") {
  const auto u = checks::random_tensor<double>({5, 6}, 1),
             out = checks::random_tensor<double>({5, 6}, 2);
  const auto dense = made({.variant = "dense", .num_experts = 2, .rank = 3, .alpha = 3.0});
  checks::randomize(dense);
  const auto one = made({.variant = "single", .num_experts = 1, .rank = 6, .alpha = 6.0});
  const auto tensors = dense.tensors(), target = one.tensors();
  target[0].parameter.assign(tensors[0].parameter.value().reshape({1, 6, 6}).clone());
  auto up = BasicTensor<double>::empty({1, 6, 6});
  for (Index e = 0; e < 2; ++e)
    for (Index i = 0; i < 6; ++i)
      for (Index k = 0; k < 3; ++k)
        up[i * 6 + e * 3 + k] = tensors[1].parameter.value()[(e * 6 + i) * 3 + k];
  target[1].parameter.assign(up);
  CHECK(checks::relative_error(run(one, u, out), run(dense, u, out)) < 1e-14);

  const auto embedded = made({.variant = "embedded", .num_experts = 2, .rank = 3, .alpha = 3.0});
  for (std::size_t i = 0; i < 2; ++i)
    embedded.tensors()[i].parameter.assign(tensors[i].parameter.value().clone());
  BasicTape<double> tape({.gradients = false});
  const auto gates = BasicTensor<double>::ones({5, 2});
  CHECK(checks::relative_error(
            embedded.embedded(tape.constant(u), tape.constant(out), tape.constant(gates)).value(),
            run(dense, u, out)) < 1e-14);
  CHECK_THROWS_WITH(run(embedded, u, out), Catch::Contains("gates"));
}

TEST_CASE("PERFT refuses what it does not know") {
  CHECK_THROWS_WITH(graft::PerftConfig{.variant = "sparse"}.validate(), Catch::Contains("sparse"));
  CHECK_THROWS_WITH((graft::PerftConfig{.variant = "single", .num_experts = 2}.validate()),
                    Catch::Contains("1 expert"));
  graft::HiddenSiteInfo<float> site;
  site.path = "model.layers.0.mlp";
  site.width = 6;
  site.role = graft::HiddenRole::feed_forward;
  graft::StandaloneInit<float> init(1);
  CHECK_THROWS_WITH(
      graft::PerftMethod<float>::hidden({.variant = "embedded"}, site, init.context()),
      Catch::Contains("no router"));
}
