#include "graft/adapters/prompts/prefix_tuning.hpp"

#include "adapters/prompts/tiny_llama.hpp"
#include "graft/adapters/prompts/cartridge.hpp"
#include "graft/adapters/prompts/p_tuning_v2.hpp"

using prompts::kKeyWidth, prompts::kLayers;

namespace {

graft::PrefixTuningConfig prefix(bool projection) {
  graft::PrefixTuningConfig c;
  c.prompt.num_virtual_tokens = 3;
  c.prefix_projection = projection;
  c.encoder_hidden_size = 5;
  return c;
}

}  // namespace

TEST_CASE("Prefix tuning: count, gradients, generation") {
  prompts::Setup<double> setup(prefix(false));
  CHECK(setup.set().trainable_elements() == 3 * 2 * kLayers * kKeyWidth);
  CHECK(setup.gradient_error() < 1e-6);
  CHECK(setup.model.virtual_positions() == 3);
  prompts::Setup<float> single(prefix(false));
  single.expect_cached_generation();
}

TEST_CASE("Prefix tuning with its projection: count, gradients, files") {
  prompts::Setup<double> setup(prefix(true));
  CHECK(setup.set().trainable_elements() ==
        3 * kKeyWidth + (kKeyWidth + 1) * 5 + 6 * 2 * kLayers * kKeyWidth);
  CHECK(setup.gradient_error() < 1e-6);
  CHECK(setup.expect_same_after_saving() == std::vector<std::string>{"prompt_embeddings"});
}

TEST_CASE("A table that a file does not hold stays as it is, however often it is asked for") {
  graft::StandaloneInit<double> init(3);
  const graft::Shape shape{4, 6};
  graft::PromptTable<double> table(
      shape, std::make_unique<graft::detail::CartridgeEncoder<double>>(shape, 1, init.context()));
  const auto values = [&] {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    return table.all(tape).value().clone();
  };
  const auto before = values();
  for (int i = 0; i < 2; ++i) {
    table.before_load([](std::string_view) { return nullptr; });
    table.after_load();
    CHECK(checks::relative_error(values(), before) == 0);
  }
}

TEST_CASE("A prefix of zeros leaves the values, and takes its share of the attention") {
  auto c = prefix(GENERATE(false, true));
  c.init_weights = "zero";
  prompts::Setup<double> setup(c);
  graft::BasicTape<double> tape({.gradients = false});
  const auto& part = dynamic_cast<const graft::PrefixPart<double>&>(*setup.set().parts()[0].part);
  const auto values = part.table().all(tape).value();
  for (const double v : values) CHECK(v == 0);
  const auto with = setup.logits({1, 2});
  setup.adapters.activate({});
  CHECK(checks::relative_error(with, setup.logits({1, 2})) > 1e-3);
}

TEST_CASE("A prefix works with recomputed blocks too") {
  prompts::Setup<double> setup(prefix(true));
  const auto before = setup.loss();
  setup.model.recomputed_blocks = 2;
  CHECK(setup.loss() == Approx(before));
  CHECK(setup.gradient_error() < 1e-6);
}

TEST_CASE("P-tuning v2 is a prefix that is trained itself, PREFIX_TUNING_MLP keeps its encoder") {
  graft::PTuningV2Config raw;
  raw.num_virtual_tokens = 3;
  prompts::Setup<double> setup(raw);
  CHECK(setup.set().trainable_elements() == 3 * 2 * kLayers * kKeyWidth);
  CHECK(setup.expect_same_after_saving() ==
        std::vector<std::string>{"base_model.model.prompt_embeddings"});
  graft::PrefixTuningMlpConfig mlp;
  mlp.num_virtual_tokens = 3;
  mlp.encoder_hidden_size = 5;
  prompts::Setup<double> other(mlp);
  CHECK(other.set().trainable_elements() ==
        3 * prompts::kWidth + (prompts::kWidth + 1) * 5 + 6 * 2 * kLayers * kKeyWidth);
  CHECK(other.gradient_error() < 1e-6);
  CHECK(other.expect_same_after_saving().size() == 5);
}

TEST_CASE("Cartridge trains all rows but the first ones") {
  graft::CartridgeConfig c;
  c.prompt.num_virtual_tokens = 4;
  c.num_frozen_tokens = GENERATE(0, 1, 4);
  prompts::Setup<double> setup(c);
  CHECK(setup.set().trainable_elements() == (4 - c.num_frozen_tokens) * 2 * kLayers * kKeyWidth);
  if (c.num_frozen_tokens < 4) CHECK(setup.gradient_error() < 1e-6);
  CHECK(setup.expect_same_after_saving() == std::vector<std::string>{"prompt_embeddings"});
  CHECK(setup.adapters.at("again").trainable_elements() == setup.set().trainable_elements());
  c.num_frozen_tokens = 5;
  CHECK_THROWS_WITH(setup.adapters.add("q", c), Catch::Contains("num_frozen_tokens 5"));
}
