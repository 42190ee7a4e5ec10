#include "graft/layers/window_cache.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/autograd/ops/attention.hpp"

using graft::Index;
using Wide = graft::BasicTensor<double>;
using Tape = graft::BasicTape<double>;
using Var = graft::BasicVar<double>;
using Cache = graft::BasicKvCache<double>;
using Parameter = graft::BasicParameter<double>;

namespace {

constexpr Index kTokens = 9, kWidth = 6;

struct Layers {
  std::vector<Parameter> weights;  // q, k, v of two layers
  Layers() {
    for (unsigned i = 0; i < 6; ++i)
      weights.emplace_back(checks::random_tensor<double>({kWidth, kWidth}, i + 1, 0.5));
  }
  Var operator()(Var x, Cache* cache) const {
    for (Index layer = 0; layer < 2; ++layer) {
      const auto times = [&](Index i) {
        return matmul(x, x.tape().parameter(weights[static_cast<std::size_t>(3 * layer + i)]));
      };
      auto k = times(1), v = times(2);
      if (cache != nullptr) std::tie(k, v) = cache->extend(layer, k, v);
      graft::AttentionOptions<double> options;
      options.heads = options.kv_heads = 2;
      x = add(x, tanh(attention(times(0), k, v, options)));
    }
    return x;
  }
};

}  // namespace

TEST_CASE("Windows of any lengths have the outputs and gradients of the whole sequence") {
  const Layers layers;
  const auto x = checks::random_tensor<double>({kTokens, kWidth}, 20);
  auto dy = checks::random_tensor<double>({kTokens, kWidth}, 21);
  const auto windows =
      GENERATE(std::vector<Index>{9}, std::vector<Index>{4, 3, 2}, std::vector<Index>{1, 1, 6, 1});
  const bool silent = GENERATE(false, true);
  if (silent) std::fill_n(dy.data(), windows[0] * kWidth, 0.0);  // no loss in the first window
  Tape tape;
  const auto leaf = tape.leaf(x);
  const auto whole = layers(leaf, nullptr);
  tape.backward(whole, dy);
  std::vector<Wide> expected;
  for (const auto& p : layers.weights) {
    expected.push_back(p.grad());
    p.zero_grad();
  }
  graft::BasicWindowedSequence<double> sequence;
  std::vector<Var> leaves;
  std::vector<Wide> gradients;
  Index first = 0;
  for (const Index n : windows) {
    const auto& y = sequence.forward([&](Tape& own, Cache& cache) {
      leaves.push_back(own.leaf(x.slice_rows(first, n).clone()));
      return layers(leaves.back(), &cache);
    });
    CHECK(checks::relative_error(y.value(), whole.value().slice_rows(first, n)) < 1e-12);
    gradients.push_back(silent && first == 0 ? Wide{} : dy.slice_rows(first, n));
    first += n;
  }
  if (silent && windows.size() == 1) return;  // nothing to learn
  sequence.backward(gradients);
  for (std::size_t i = 0; i < expected.size(); ++i)
    CHECK(checks::relative_error(layers.weights[i].grad(), expected[i]) < 1e-12);
  for (std::size_t w = 0, row = 0; w < leaves.size(); ++w) {
    const auto dx = leaf.grad().slice_rows(static_cast<Index>(row), windows[w]);
    CHECK(checks::relative_error(leaves[w].grad(), dx) < 1e-12);
    row += static_cast<std::size_t>(windows[w]);
  }
  CHECK_THROWS_AS(sequence.backward({}), graft::ValueError);
  sequence.clear();
  CHECK(sequence.windows() == 0);
}

TEST_CASE("An iteration takes as many fine-tuning tokens as the objective leaves room for") {
  const auto latency = [](Index c, Index s) { return 2.0 * static_cast<double>(c + s); };
  CHECK(graft::finetuning_tokens(latency, 10, 50) == 15);
  CHECK(graft::finetuning_tokens(latency, 25, 50) == 0);
  CHECK(graft::finetuning_tokens(latency, 30, 50) == 0);
  CHECK(graft::finetuning_tokens(latency, 0, 1e9, 64) == 64);
}
