#include "graft/optim/server_adam.hpp"

#include <catch2/catch.hpp>

using Parameter = graft::BasicParameter<double>;

TEST_CASE("The server's optimisers: two steps by hand") {
  for (const std::string rule : {"adam", "yogi", "adagrad"}) {
    const Parameter p(graft::BasicTensor<double>::full({1}, 1));
    graft::BasicServerAdam<double> optimizer(
        {p}, {.learning_rate = 0.5, .beta1 = 0.8, .beta2 = 0.9, .eps = 0.01, .rule = rule});
    double m = 0, v = 0, theta = 1;
    for (const double g : {2.0, -0.5}) {
      m = 0.8 * m + 0.2 * g;
      if (rule == "adam") v = 0.9 * v + 0.1 * g * g;
      if (rule == "yogi") v -= 0.1 * g * g * (v > g * g ? 1 : -1);
      if (rule == "adagrad") v += g * g;
      theta -= 0.5 * m / (std::sqrt(v) + 0.01);
      p.mutable_grad() = graft::BasicTensor<double>::full({1}, g);
      optimizer.step();
      CHECK(p.value()[0] == Approx(theta));
    }
  }
  const Parameter p(graft::BasicTensor<double>::full({1}, 1));
  CHECK_THROWS_AS(graft::BasicServerAdam<double>({p}, {.rule = "lamb"}), graft::ValueError);
  CHECK_THROWS_AS(graft::BasicServerAdam<double>({p}, {.beta1 = 1}), graft::ValueError);
}
