#include "graft/autograd/ops/attention.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <vector>

#include "adapters/method_checks.hpp"
#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/reduce.hpp"

using checks::random_tensor;
using graft::Index;

TEST_CASE("the gradient of the bias of attention is the sum over the batch") {
  const double cap = GENERATE(0.0, 2.0);
  const Index batch = 3, heads = 4, queries = 5, keys = 7, d = 6;
  graft::BasicParameter<double> bias(random_tensor<double>({heads, queries, keys}, 1)),
      q(random_tensor<double>({batch * queries, heads * d}, 2));
  const auto k = random_tensor<double>({batch * keys, 2 * d}, 3),
             v = random_tensor<double>({batch * keys, 2 * d}, 4),
             weights = random_tensor<double>({batch * queries, heads * d}, 5);
  const auto loss = [&](graft::BasicTape<double>& tape) {
    graft::AttentionOptions<double> options;
    options.batch = batch;
    options.heads = heads;
    options.kv_heads = 2;
    options.causal = false;
    options.softcap = cap;
    options.bias = tape.parameter(bias);
    return sum(mul(attention(tape.parameter(q), tape.constant(k), tape.constant(v), options),
                   tape.constant(weights)));
  };
  CHECK(graft::gradient_check(loss, {bias, q}).relative_error < 1e-8);
}

TEST_CASE("masks and windows of attention hide keys from the gradient of its bias too") {
  const bool causal = GENERATE(false, true);
  const Index batch = 2, heads = 2, queries = 5, keys = 7, d = 3, window = 3;
  const std::vector<unsigned char> mask{1, 1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1};
  graft::BasicParameter<double> bias(random_tensor<double>({heads, queries, keys}, 1));
  const auto q = random_tensor<double>({batch * queries, heads * d}, 2),
             k = random_tensor<double>({batch * keys, heads * d}, 3),
             v = random_tensor<double>({batch * keys, heads * d}, 4),
             weights = random_tensor<double>({batch * queries, heads * d}, 5);
  const auto loss = [&](graft::BasicTape<double>& tape) {
    graft::AttentionOptions<double> options;
    options.batch = batch;
    options.heads = options.kv_heads = heads;
    options.causal = causal;
    options.window = window;
    options.key_mask = std::make_shared<std::vector<unsigned char>>(mask);
    options.bias = tape.parameter(bias);
    return sum(mul(attention(tape.constant(q), tape.constant(k), tape.constant(v), options),
                   tape.constant(weights)));
  };
  CHECK(graft::gradient_check(loss, {bias}).relative_error < 1e-8);
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < queries; ++i)
      for (Index j = 0; j < keys; ++j) {
        const Index last = i + keys - queries;
        const auto at = static_cast<std::size_t>(j);
        const bool hidden =
            (mask[at] == 0 && mask[at + keys] == 0) || j <= last - window || (causal && j > last);
        CAPTURE(h, i, j);
        if (hidden) CHECK(bias.grad()[(h * queries + i) * keys + j] == 0);
      }
}

TEST_CASE("attention refuses a bias of another size") {
  graft::BasicTape<double> tape;
  const auto x = tape.constant(random_tensor<double>({4, 6}, 1));
  graft::AttentionOptions<double> options;
  options.bias = tape.constant(random_tensor<double>({1, 4, 3}, 2));
  CHECK_THROWS_WITH(attention(x, x, x, options), Catch::Contains("bias [1, 4, 3]"));
}
