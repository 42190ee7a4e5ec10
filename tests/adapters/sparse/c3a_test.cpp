#include "graft/adapters/sparse/c3a.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicC3A;
using graft::C3A;
using graft::C3AConfig;
using graft::Index;

TEST_CASE("C3A with blocks of every kind of size differentiates and merges") {
  for (const Index b : {1, 2, 3, 4, 6, 12}) {
    const C3AConfig config{.block_size = b, .init_weights = true};
    INFO("block size " << b);
    CHECK(checks::change_at_init<BasicC3A<double>>(config, 36, 24) < 1e-15);
    CHECK(checks::gradient_error<BasicC3A<double>>(config, 36, 24) < 1e-8);
    CHECK(checks::merge_error<C3A>(config, 36, 24) < 1e-5);
    CHECK(checks::trained<C3A>(config, 36, 24) == 36 * 24 / b);
  }
}

TEST_CASE("C3A's blocks are circulant: the element depends on the difference of the positions") {
  const Index out = 10, in = 15, b = 5;
  const auto layer = checks::random_layer<double>(out, in, 1, false);
  const auto method = checks::make<BasicC3A<double>>({.block_size = b}, checks::site_of(layer));
  const auto w = method.tensors()[0].parameter.value();
  const auto merged = merge_linear(layer, method).dense_weight();
  for (Index o = 0; o < out; ++o)
    for (Index i = 0; i < in; ++i) {
      const Index block = o / b * (in / b) + i / b, lag = (i % b - o % b + b) % b;
      CHECK(merged(o, i) - layer.dense_weight()(o, i) ==
            Approx(w[block * b + lag] / static_cast<double>(in)).margin(1e-14));
    }
}

TEST_CASE("C3A takes block sizes by pattern and refuses those that do not divide") {
  CHECK(checks::trained<C3A>({.block_size = 5, .block_size_pattern = {{"proj", 3}}}, 15, 12) == 60);
  CHECK_THROWS_WITH(checks::trained<C3A>({.block_size = 5}, 15, 12),
                    Catch::Contains("does not divide"));
  CHECK_THROWS_WITH(checks::trained<C3A>({.block_size = 3, .init_weights = "ones"}, 15, 12),
                    Catch::Contains("init_weights"));
}
