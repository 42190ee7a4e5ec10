#include "graft/optim/sgd.hpp"

#include <catch2/catch.hpp>

namespace {

/// Six steps with given gradients; torch.optim.SGD gave the expected values below for them.
void check(graft::SgdConfig config, const std::vector<double>& expected) {
  config.learning_rate = 0.03;
  config.weight_decay = 0.1;
  const graft::BasicParameter<double> p(graft::BasicTensor<double>::from({0.5, -1.25, 2.0}, {3}));
  graft::BasicSgd<double> optimizer({p}, config);
  for (int t = 1; t <= 6; ++t) {
    p.mutable_grad() = graft::BasicTensor<double>::from({0.3 * t, -0.7, 0.01 * t * t}, {3});
    optimizer.step();
  }
  for (graft::Index i = 0; i < 3; ++i)
    CHECK(p.value()[i] == Approx(expected[static_cast<std::size_t>(i)]).epsilon(1e-13));
}

}  // namespace

TEST_CASE("SGD follows torch's") {
  check({}, {0.3030094007046706, -1.1026093050117274, 1.9370632148103668});
}

TEST_CASE("SGD with momentum and dampening follows torch's") {
  check({.momentum = 0.9, .dampening = 0.25},
        {0.13528503558194388, -0.8929236545525641, 1.8729757269025102});
}

TEST_CASE("SGD with Nesterov momentum follows torch's") {
  check({.momentum = 0.9, .nesterov = true},
        {-0.1162847183245327, -0.7132160917295668, 1.794836084847161});
}

TEST_CASE("SGD refuses settings out of range") {
  const graft::Parameter p(graft::Tensor::zeros({2}));
  CHECK_THROWS_AS(graft::Sgd({p}, {.momentum = 1}), graft::ValueError);
  CHECK_THROWS_AS(graft::Sgd({p}, {.nesterov = true}), graft::ValueError);
}
