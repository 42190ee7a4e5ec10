#include "graft/adapters/low_rank/gralora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicGraLoRA;
using graft::GraLoRA;
using graft::Index;

TEST_CASE("GraLoRA begins as the identity, differentiates and merges") {
  for (const Index hybrid : {0, 3}) {
    const graft::GraLoRAConfig config{.rank = 6, .hybrid_rank = hybrid, .alpha = 4, .blocks = 3};
    CHECK(checks::change_at_init<BasicGraLoRA<double>>(config, 9, 12) < 1e-13);
    CHECK(checks::gradient_error<BasicGraLoRA<double>>(config, 9, 12) < 1e-7);
    CHECK(checks::merge_error<GraLoRA>(config, 9, 12) < 1e-5);
    CHECK(checks::trained<GraLoRA>(config, 9, 12) == (6 + hybrid) * (9 + 12));
  }
  CHECK_THROWS_WITH(checks::trained<GraLoRA>({.rank = 4, .blocks = 3}), Catch::Contains("divide"));
  CHECK_THROWS_WITH(checks::trained<GraLoRA>({.rank = 4, .blocks = 2}, 10, 11),
                    Catch::Contains("does not divide 11"));
}

TEST_CASE("GraLoRA's blocks are products of their own parts") {
  const Index k = 2, r = 4, in = 6, out = 8, part = r / k;
  const auto layer = checks::random_layer<double>(out, in, 1);
  const auto method = checks::make<BasicGraLoRA<double>>({.rank = r, .alpha = 6, .blocks = k},
                                                         checks::site_of(layer));
  checks::randomize(method);
  const auto a = method.tensors()[0].parameter.value(), b = method.tensors()[1].parameter.value();
  const auto merged = merge_linear(layer, method).dense_weight();
  for (Index o = 0; o < out; ++o)
    for (Index i = 0; i < in; ++i) {
      const Index j = o / (out / k), n = i / (in / k);
      double delta = 0;
      for (Index q = 0; q < part; ++q)
        delta += a[(n * (in / k) + i % (in / k)) * r + j * part + q] *
                 b[(j * r + n * part + q) * (out / k) + o % (out / k)];
      CHECK(merged(o, i) - layer.dense_weight()(o, i) == Approx(6.0 / r * delta));
    }
}
