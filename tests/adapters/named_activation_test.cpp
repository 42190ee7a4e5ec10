#include "graft/adapters/named_activation.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/reduce.hpp"

TEST_CASE("activations go by the names of the libraries") {
  const graft::BasicTensor<double> x =
      graft::BasicTensor<double>::from(std::vector<double>{-1.5, -0.2, 0.3, 2.0}, {4});
  const auto value = [&](const char* name, graft::Index i) {
    graft::BasicTape<double> tape({.gradients = false});
    return graft::detail::apply_activation(name, tape.constant(x)).value()[i];
  };
  CHECK(value("leakyrelu", 0) == Approx(-0.015));
  CHECK(value("leaky_relu", 3) == Approx(2.0));
  CHECK(value("elu", 0) == Approx(std::exp(-1.5) - 1));
  CHECK(value("elu", 2) == Approx(0.3));
  CHECK(value("softplus", 1) == Approx(std::log1p(std::exp(-0.2))));
  const graft::BasicParameter<double> p(x);
  for (const char* name : {"elu", "softplus", "leakyrelu"}) {
    const auto f = [&](graft::BasicTape<double>& tape) {
      return sum(square(graft::detail::apply_activation(name, tape.parameter(p))));
    };
    CHECK(graft::gradient_check(f, {p}).relative_error < 1e-8);
  }
  CHECK_THROWS_WITH(value("swoosh", 0), Catch::Contains("swoosh"));
  CHECK_THROWS_AS(graft::detail::require_activation("Houlsby", "swoosh"), graft::ValueError);
}
