#include "graft/adapters/orthogonal/osf.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicOSF;
using graft::Index;
using graft::OSF;
using graft::OSFConfig;

TEST_CASE("OSF begins as the identity and merges, wide and tall") {
  for (const Index out : {9, 12, 15}) {
    CHECK(checks::change_at_init<BasicOSF<double>>({.effective_rank = 4}, out, 12) < 1e-13);
    CHECK(checks::merge_error<OSF>({.effective_rank = 4}, out, 12) < 1e-5);
  }
  CHECK(checks::change_at_init<BasicOSF<double>>({.init_weights = false}) > 0.1);
}

TEST_CASE("OSF counts the frozen directions as PEFT does") {
  const auto low = [](const OSFConfig& config) {
    return checks::trained<OSF>(config, 10, 12) / (10 + 12 + 1);
  };
  CHECK(low({}) == 5);
  CHECK(low({.effective_rank = 3}) == 7);
  CHECK(low({.effective_rank = 0.35}) == 7);
  CHECK(low({.effective_rank = 3, .rank_pattern = {{"^other", 2}, {"ro", 8}}}) == 2);
  CHECK_THROWS_WITH(low({.effective_rank = 10}), Catch::Contains("effective_rank 10"));
}

TEST_CASE("OSF's gradients are those of the product without the frozen directions") {
  for (const Index out : {9, 15}) {
    const auto layer = checks::random_layer<double>(out, 12, 1);
    const auto method =
        checks::make<BasicOSF<double>>({.effective_rank = 4}, checks::site_of(layer));
    checks::randomize(method);
    const auto d = graft::svd(layer.dense_weight());
    const auto x = checks::random_tensor<double>({5, 12}, 2);
    graft::BasicTape<double> tape;
    const auto input = tape.leaf(x);
    tape.backward(sum(method.apply(layer, input)));
    const auto list = method.tensors();
    const auto u = list[0].parameter.grad(), v = list[2].parameter.grad();
    double largest = 0, inside = 0;
    for (double g : u) largest = std::max(largest, std::abs(g));
    for (Index j = 0; j < 4; ++j) {
      for (Index k = 0; k < u.cols(); ++k) {
        double dot = 0;
        for (Index o = 0; o < out; ++o) dot += d.u(o, j) * u(o, k);
        inside = std::max(inside, std::abs(dot));
      }
      for (Index k = 0; k < v.rows(); ++k) {
        double dot = 0;
        for (Index i = 0; i < 12; ++i) dot += d.v(i, j) * v(k, i);
        inside = std::max(inside, std::abs(dot));
      }
    }
    CHECK(largest > 1e-2);
    CHECK(inside < 1e-12);
    // dx and dS are not projected.
    const auto s = list[1].parameter;
    const auto value = [&] {
      graft::BasicTape<double> plain({.gradients = false});
      return sum(method.apply(layer, plain.constant(x))).item();
    };
    const double analytic = s.grad()[0], step = 1e-5, old = s.value()[0];
    s.value()[0] = old + step;
    const double above = value();
    s.value()[0] = old - step;
    CHECK(analytic == Approx((above - value()) / (2 * step)).epsilon(1e-6));
  }
}
