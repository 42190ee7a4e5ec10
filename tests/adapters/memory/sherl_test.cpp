#include "graft/adapters/memory/sherl.hpp"

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::Index;

namespace {

struct SherlSetup {
  graft::SHERLConfig config{.mapping_size = 6, .num_states = 4};
  graft::StandaloneInit<double> init{3};
  graft::BasicSHERL<double> network{config, 8, init.context()};
  std::vector<BasicTensor<double>> h;

  SherlSetup() {
    for (unsigned i = 0; i < 4; ++i) h.push_back(checks::random_tensor<double>({5, 8}, 10 + i));
    checks::randomize(network, 0.5);
  }
  auto run(graft::BasicTape<double>& tape) const {
    std::vector<graft::BasicVar<double>> states;
    for (const auto& t : h) states.push_back(tape.constant(t));
    return network(states, states.back());
  }
};

}  // namespace

TEST_CASE("SHERL's gradients are those of its function") {
  const SherlSetup s;
  std::vector<graft::BasicParameter<double>> parameters;
  Index count = 0;
  for (const auto& t : s.network.tensors()) {
    count += t.parameter.size();
    // tanh(θ / 0.1) saturates for large θ.
    if (t.name.ends_with("theta")) t.parameter.assign(BasicTensor<double>::full({1}, 0.03));
    // Positive scores: with one of them alone its weight is 1, and the gate has no gradient.
    if (t.name.ends_with("gate.bias")) t.parameter.assign(BasicTensor<double>::full({1}, 3));
    parameters.push_back(t.parameter);
  }
  CHECK(count == 4 * 6 * (8 + 3) + 6 + 1 + 8 * (6 + 3) + 1);
  const auto weights = checks::random_tensor<double>({5, 8}, 4);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              return sum(mul(s.run(tape).y, tape.constant(weights)));
            },
            parameters)
            .relative_error < 1e-5);
}

TEST_CASE("Copies of a shallow state share its weight") {
  SherlSetup s;
  const auto tensors = s.network.tensors();
  // The same reader for the first three states, and a positive score for every token.
  for (std::size_t i = 1; i < 3; ++i)
    for (std::size_t k = 0; k < 4; ++k)
      tensors[4 * i + k].parameter.assign(tensors[k].parameter.value().clone());
  for (const auto& t : tensors) {
    if (t.name.ends_with("gate.weight")) t.parameter.assign(BasicTensor<double>::zeros({1, 6}));
    if (t.name.ends_with("gate.bias")) t.parameter.assign(BasicTensor<double>::full({1}, 1));
  }
  s.h[1] = s.h[0];
  graft::BasicTape<double> tape({.gradients = false});
  const auto w = s.run(tape).weights.value();
  REQUIRE(w.shape() == graft::Shape{5, 3});
  for (Index r = 0; r < 5; ++r) {
    CHECK(w(r, 0) + w(r, 1) + w(r, 2) == Approx(1));
    CHECK(w(r, 0) == Approx(w(r, 1)));
    CHECK(w(r, 0) < w(r, 2));
  }
  CHECK_THROWS_WITH(graft::BasicSHERL<double>({.num_states = 1}, 8, s.init.context()),
                    Catch::Contains("num_states 1"));
}
