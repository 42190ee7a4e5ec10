#include "graft/adapters/prompts/iapt.hpp"

#include "adapters/prompts/tiny_llama.hpp"

using prompts::kLayers;
using prompts::kWidth;

TEST_CASE("IAPT: count, gradients, files") {
  const graft::IaptConfig config{.num_virtual_tokens = 2, .generator_dim = 5};
  prompts::Setup<double> setup(config);
  CHECK(setup.set().trainable_elements() == kLayers * (2 * 5 * kWidth + 2 * 5 + kWidth + 12));
  CHECK(setup.gradient_error() < 1e-6);
  CHECK(setup.expect_same_after_saving().size() == kLayers * 6);
  CHECK_THROWS_WITH(setup.adapters.add("q", graft::IaptConfig{.generator_dim = 0}),
                    Catch::Contains("generator_dim 0"));
}

TEST_CASE("The rational activation starts as GELU") {
  graft::StandaloneInit<double> init(1);
  const graft::detail::IaptGenerator<double> generator({.generator_dim = 3}, 4, init.context());
  std::vector<graft::AdapterTensor<double>> tensors;
  generator.list(tensors, "b");
  graft::BasicTape<double> tape({.gradients = false});
  auto x = graft::BasicTensor<double>::empty({1, 61});
  for (graft::Index i = 0; i < 61; ++i) x[i] = -3 + 0.1 * static_cast<double>(i);
  const auto in = tape.constant(x);
  const auto y =
      rational(in, tape.parameter(tensors[4].parameter), tape.parameter(tensors[5].parameter));
  const auto expected = gelu(in).value();
  for (graft::Index i = 0; i < 61; ++i) CHECK(std::abs(y.value()[i] - expected[i]) < 2e-4);
}

TEST_CASE("Prompts of IAPT depend on the instruction alone") {
  prompts::Setup<double> setup(graft::IaptConfig{.num_virtual_tokens = 2, .generator_dim = 5});
  setup.randomize();
  const auto logits = [&](std::int32_t last, bool masked) {
    graft::models::BasicBatch<double> b;
    b.batch = 1;
    b.seq_len = 3;
    b.ids = {4, 9, last};
    if (masked) b.instruction_mask = {1, 1, 0};
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    const auto y = setup.model.logits(tape, b);
    return slice(y, 1, 2, 2).value().clone();
  };
  CHECK(checks::relative_error(logits(5, true), logits(6, true)) < 1e-12);
  CHECK(checks::relative_error(logits(5, false), logits(6, false)) > 1e-6);
}
