#include "graft/layers/decoder_blocks.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using graft::Tape;
using graft::Tensor;

namespace {

constexpr Index kWidth = 12, kHeads = 4, kKvHeads = 2, kHeadDim = 6;

struct Setup {
  graft::RotaryAttention<float> attention;
  graft::BasicRope<float> rope{graft::RopeConfig{.dim = kHeadDim}};
  explicit Setup(bool head_norm = false) {
    const auto site = [](const char* name, Index out, Index in, unsigned seed) {
      return graft::LinearSite(name, checks::random_layer<float>(out, in, seed, false));
    };
    attention.q_proj = site("q", kHeads * kHeadDim, kWidth, 1);
    attention.k_proj = site("k", kKvHeads * kHeadDim, kWidth, 2);
    attention.v_proj = site("v", kKvHeads * kHeadDim, kWidth, 3);
    attention.o_proj = site("o", kWidth, kHeads * kHeadDim, 4);
    attention.site = {"attention", 0, kHeads, kKvHeads, kHeadDim};
    attention.scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
    attention.head_norm = head_norm;
    if (head_norm) {
      graft::BasicNorm<float> norm;
      norm.weight = checks::random_tensor<float>({kHeadDim}, 5);
      attention.q_norm = {"q_norm", norm};
      attention.k_norm = {"k_norm", norm};
    }
  }
  Tensor run(const Tensor& x, graft::DecoderPass<float> pass) const {
    Tape tape({.gradients = false});
    return attention(tape.constant(x), pass, rope).value();
  }
};

}  // namespace

TEST_CASE("Token by token through the cache, attention gives what the whole text gives") {
  const Setup setup(GENERATE(false, true));
  const auto x = checks::random_tensor<float>({9, kWidth}, 7);
  const auto whole = setup.run(x, {.batch = 1, .tokens = 9});
  graft::KvCache cache;
  for (Index first = 0, count = 4; first < 9; first += count, count = 1) {
    const auto part =
        setup.run(x.slice_rows(first, count).clone(),
                  {.batch = 1, .tokens = count, .cache = &cache, .first_position = first});
    cache.advance(count);
    CHECK(checks::relative_error(part, whole.slice_rows(first, count)) < 1e-5);
  }
}

TEST_CASE("Later tokens do not reach earlier ones, and a window ends what they see") {
  Setup setup;
  setup.attention.window = GENERATE(0, 3);
  auto x = checks::random_tensor<float>({8, kWidth}, 7);
  const auto before = setup.run(x, {.batch = 1, .tokens = 8});
  x(5, 0) += 1;
  const auto after = setup.run(x, {.batch = 1, .tokens = 8});
  for (Index t = 0; t < 8; ++t) {
    const bool reached = t >= 5 && (setup.attention.window == 0 || t < 5 + setup.attention.window);
    const bool same = std::equal(before.begin() + t * kWidth, before.begin() + (t + 1) * kWidth,
                                 after.begin() + t * kWidth);
    CHECK(same != reached);
  }
}

TEST_CASE("Masked keys do not matter, whatever they hold") {
  const Setup setup;
  auto x = checks::random_tensor<float>({2 * 5, kWidth}, 7);
  graft::DecoderPass<float> pass{.batch = 2, .tokens = 5};
  pass.key_mask = std::make_shared<const std::vector<unsigned char>>(
      std::vector<unsigned char>{0, 1, 1, 1, 1, 1, 1, 0, 1, 1});
  const auto before = setup.run(x, pass);
  for (Index j = 0; j < kWidth; ++j) {
    x(0, j) += 1;
    x(7, j) += 1;
  }
  const auto after = setup.run(x, pass);
  for (Index t : {1, 2, 3, 4, 5, 6, 8, 9})
    CHECK(std::equal(before.begin() + t * kWidth, before.begin() + (t + 1) * kWidth,
                     after.begin() + t * kWidth));
}

TEST_CASE("A gated feed-forward is down of gate's activation times up") {
  graft::GatedMlp<double> mlp;
  mlp.gate_proj = {"gate", checks::random_layer<double>(7, 5, 1)};
  mlp.up_proj = {"up", checks::random_layer<double>(7, 5, 2)};
  mlp.down_proj = {"down", checks::random_layer<double>(4, 7, 3)};
  const auto x = checks::random_tensor<double>({3, 5}, 4);
  graft::BasicTape<double> tape({.gradients = false});
  const auto v = tape.constant(x);
  const auto expected = mlp.down_proj(mul(silu(mlp.gate_proj(v)), mlp.up_proj(v))).value();
  CHECK(checks::relative_error(mlp(v).value(), expected) < 1e-14);
  const graft::BasicParameter<double> p(x);
  const auto loss = [&](graft::BasicTape<double>& t) { return sum(square(mlp(t.parameter(p)))); };
  CHECK(graft::gradient_check(loss, {p}).relative_error < 1e-7);
}
