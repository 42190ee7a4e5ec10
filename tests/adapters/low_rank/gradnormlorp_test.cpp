#include "graft/adapters/low_rank/gradnormlorp.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using GradNormLoRP = graft::BasicGradNormLoRP<double>;

TEST_CASE("GradNormLoRP begins as the layer, has right gradients, merges and trains all of it") {
  CHECK(checks::change_at_init<GradNormLoRP>({}) == 0);
  CHECK(checks::gradient_error<GradNormLoRP>({}) < 1e-7);
  CHECK(checks::merge_error<graft::GradNormLoRP>({}) < 1e-5);
  CHECK(checks::trained<graft::GradNormLoRP>({}, 10, 12) == 130);
  CHECK_THROWS_WITH(checks::trained<graft::GradNormLoRP>({.rank = 11}, 10, 12),
                    Catch::Contains("expected at most 10"));
}

TEST_CASE("the exact gradient of a direction is perpendicular to it") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto x = checks::random_tensor<double>({4, 6}, 2);
  const auto largest = [&](bool exact) {
    const auto method =
        checks::make<GradNormLoRP>({.rank = 2, .exact_gradient = exact}, checks::site_of(layer));
    graft::BasicTape<double> tape;
    tape.backward(sum(square(method.apply(layer, tape.constant(x)))));
    const auto &v = method.direction().value(), &g = method.direction().grad();
    double product = 0;
    for (Index o = 0; o < 5; ++o) {
      double dot = 0;
      for (Index i = 0; i < 6; ++i) dot += v(o, i) * g(o, i);
      product = std::max(product, std::abs(dot));
    }
    return product;
  };
  CHECK(largest(true) < 1e-9);
  CHECK(largest(false) > 1e-3);
}

TEST_CASE("a projector of full rank loses nothing, and its vectors are orthonormal") {
  for (const auto& shape : {graft::Shape{7, 4}, graft::Shape{4, 7}}) {
    const auto gradient = checks::random_tensor<double>(shape, 3);
    const auto p = graft::gradient_projector(gradient, 4);
    const bool tall = shape[0] > shape[1];
    const auto gram = graft::detail::product(p, p, 1.0, !tall, tall);
    CHECK(checks::relative_error(gram, graft::BasicTensor<double>::identity(4)) < 1e-12);
    const auto low = tall ? graft::detail::product(gradient, p, 1.0, false, true)
                          : graft::detail::product(p, gradient, 1.0, true);
    const auto back = tall ? graft::detail::product(low, p) : graft::detail::product(p, low);
    CHECK(checks::relative_error(back, gradient) < 1e-12);
  }
}

TEST_CASE("the optimiser of GradNormLoRP goes on from what it kept") {
  graft::GradNormLoRPConfig config;
  config.rank = 2;
  config.projection_interval = 3;
  const auto run = [&](bool broken) {
    auto v = checks::random_tensor<double>({5, 4}, 1), g = checks::random_tensor<double>({5, 1}, 2);
    graft::GradNormOptimizer<double> optimizer;
    for (unsigned t = 0; t < 5; ++t) {
      if (broken && t == 2) {
        graft::detail::ProcedureState state;
        optimizer.keep(state, "w");
        optimizer = {};
        optimizer.restore(state, "w", config.rank, v.shape());
      }
      optimizer.step(config, v, g, checks::random_tensor<double>({5, 4}, 10 + t),
                     checks::random_tensor<double>({5, 1}, 20 + t), 0.1);
    }
    return v;
  };
  CHECK(checks::relative_error(run(true), run(false)) == 0);
  CHECK(checks::relative_error(run(true), checks::random_tensor<double>({5, 4}, 1)) > 0.1);
}
