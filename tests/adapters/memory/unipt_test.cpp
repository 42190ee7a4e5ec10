#include "graft/adapters/memory/unipt.hpp"

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::Index;

namespace {

struct UniptSetup {
  graft::UniPTConfig config{.mapping_size = 6, .embed_size = 5, .num_states = 3};
  graft::StandaloneInit<double> init{3};
  graft::BasicUniPT<double> network{config, 8, init.context()};
  std::vector<BasicTensor<double>> h;
  std::vector<unsigned char> mask{1, 1, 1, 0, 1, 1, 0, 0};

  UniptSetup() {
    for (unsigned i = 0; i < 3; ++i) h.push_back(checks::random_tensor<double>({2, 4, 8}, 10 + i));
    checks::randomize(network, 0.5);
  }
  auto run(graft::BasicTape<double>& tape) const {
    std::vector<graft::BasicVar<double>> states;
    for (const auto& t : h) states.push_back(tape.constant(t));
    return network(states, mask);
  }
};

}  // namespace

TEST_CASE("UniPT's gradients are those of its function and its states get none") {
  const UniptSetup s;
  std::vector<graft::BasicParameter<double>> parameters;
  Index count = 0;
  for (const auto& t : s.network.tensors()) {
    count += t.parameter.size();
    // The bias of the gate cancels in the softmax.
    if (!t.name.ends_with("gate.bias")) parameters.push_back(t.parameter);
  }
  CHECK(count == 3 * 6 * (8 + 3) + 6 * (6 + 3) + 6 + 1 + 5 * (6 + 1));
  const auto weights = checks::random_tensor<double>({2, 4, 5}, 4);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              return sum(mul(s.run(tape).y, tape.constant(weights)));
            },
            parameters, 1e-6)
            .relative_error < 1e-5);
  graft::BasicTape<double> tape;
  const auto leaf = tape.leaf(s.h[0]);
  const auto y = s.network({leaf, tape.constant(s.h[1]), tape.constant(s.h[2])}, s.mask).y;
  tape.backward(y, weights);
  CHECK_FALSE(leaf.grad());
}

TEST_CASE("Masked tokens change nothing of what real tokens get, and the weights sum to one") {
  UniptSetup s;
  graft::BasicTape<double> tape({.gradients = false});
  const auto before = s.run(tape);
  CHECK(before.confidence.shape() == graft::Shape{2, 2});
  for (Index b = 0; b < 2; ++b)
    CHECK(before.confidence.value()(b, 0) + before.confidence.value()(b, 1) == Approx(1));
  for (auto& t : s.h)
    for (Index i = 0; i < 8; ++i)
      for (Index row = 0; row < 8; ++row)
        if (s.mask[static_cast<std::size_t>(row)] == 0) t[row * 8 + i] += 3;
  const auto after = s.run(tape);
  bool moved = false;
  for (Index row = 0; row < 8; ++row)
    for (Index j = 0; j < 5; ++j) {
      const double a = before.y.value()[row * 5 + j], b = after.y.value()[row * 5 + j];
      if (s.mask[static_cast<std::size_t>(row)] != 0)
        CHECK(a == Approx(b).margin(1e-12));
      else
        moved = moved || std::abs(a - b) > 1e-6;
    }
  CHECK(moved);
  CHECK_THROWS_WITH(s.network({before.y}, s.mask), Catch::Contains("1 hidden states, expected 3"));
  CHECK_THROWS_WITH(graft::BasicUniPT<double>({.num_states = 1}, 8, s.init.context()),
                    Catch::Contains("num_states 1"));
}
