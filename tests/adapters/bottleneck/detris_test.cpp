#include "graft/adapters/bottleneck/detris.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

namespace {

using graft::Index;
using DETRIS = graft::BasicDETRIS<double>;
using Tensor = graft::BasicTensor<double>;

graft::DETRISConfig detris_config(const char* variant = "vision") {
  return {.adapter_dim = 16,
          .special_tokens = 2,
          .text_dim = 3,
          .attention_dim = 4,
          .num_heads = 2,
          .variant = variant};
}
void say_batch(graft::BasicTape<double>& tape) {
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 2;
  tape.set_context(context);
}
/// Two rows of two special tokens and nine patches.
Tensor run(const DETRIS& adapter, const Tensor& x, bool training = false) {
  graft::BasicTape<double> tape({.gradients = false, .training = training});
  say_batch(tape);
  return adapter.apply(tape.constant(x), tape.constant(Tensor::zeros(x.shape())), {})
      .value()
      .clone();
}
graft::BasicParameter<double> tensor_of(const DETRIS& adapter, const std::string& name) {
  for (const auto& t : adapter.tensors())
    if (t.name == name) return t.parameter;
  FAIL("no tensor " << name);
  return {};
}

}  // namespace

TEST_CASE("DETRIS differentiates, through the statistics of the batch and the text too") {
  for (const char* variant : {"vision", "text"}) {
    graft::StandaloneInit<double> init(3);
    const DETRIS adapter(detris_config(variant), 6, 6, init.context());
    // r = 16, e = 4: bottleneck, branches, attention.
    const bool vision = variant == std::string("vision");
    CHECK(graft::trainable_elements(adapter.tensors()) ==
          16 * 12 + 16 + 6 + (vision ? 79 : 53) * 4 + 54 +
              (vision ? 2 * 64 + 4 * 16 + 4 * 3 + 24 + 16 : 0));
    checks::randomize(adapter, 0.5);
    std::vector<graft::BasicParameter<double>> parameters{
        graft::BasicParameter<double>(checks::random_tensor<double>({22, 6}, 4)),
        graft::BasicParameter<double>(checks::random_tensor<double>({2, 4, 3}, 5))};
    for (const auto& t : adapter.tensors())
      if (t.parameter.trainable()) parameters.push_back(t.parameter);
    const auto weights = checks::random_tensor<double>({22, 6}, 6);
    const auto check = graft::gradient_check(
        [&](graft::BasicTape<double>& tape) {
          say_batch(tape);
          adapter.set_text(tape.parameter(parameters[1]));
          const auto x = tape.parameter(parameters[0]);
          return sum(mul(adapter.apply(x, x, {}), tape.constant(weights)));
        },
        parameters, 1e-6, 12, 1, 1e-3);  // biases before a norm have no gradient
    CHECK(check.relative_error < 1e-5);
  }
}

TEST_CASE("special tokens of DETRIS see neither patches nor text, patches see both") {
  graft::StandaloneInit<double> init(3);
  const DETRIS adapter(detris_config(), 6, 6, init.context());
  checks::randomize(adapter, 0.5);
  auto x = checks::random_tensor<double>({22, 6}, 4);
  adapter.set_text(checks::random_tensor<double>({2, 4, 3}, 5));
  const auto y = run(adapter, x);
  adapter.set_text(checks::random_tensor<double>({2, 5, 3}, 6));
  const auto other_text = run(adapter, x);
  x(5, 0) += 1;  // a patch of the first row
  const auto other_patch = run(adapter, x);
  for (Index t = 0; t < 22; ++t) {
    const bool special = t % 11 < 2;
    CHECK((y(t, 0) == other_text(t, 0)) == special);
    if (special || t >= 11) CHECK(other_text(t, 0) == other_patch(t, 0));
  }
  CHECK(other_text(6, 0) != other_patch(6, 0));
}

TEST_CASE("the norms of DETRIS take the batch while training and then what they followed") {
  graft::StandaloneInit<double> init(3);
  DETRIS adapter(detris_config("text"), 6, 6, init.context());
  checks::randomize(adapter, 0.5);
  const auto mean = tensor_of(adapter, "aligner.branch1.0.bn.running_mean"),
             variance = tensor_of(adapter, "aligner.branch1.0.bn.running_var");
  CHECK_FALSE(mean.trainable());
  auto x = checks::random_tensor<double>({22, 6}, 4);
  const auto before = run(adapter, x);
  const auto training = run(adapter, x, true);
  CHECK(checks::relative_error(training, before) > 1e-3);
  CHECK(checks::relative_error(run(adapter, x), before) == 0);  // a step commits them
  adapter.follow();
  CHECK(checks::relative_error(run(adapter, x), before) > 1e-6);
  // Followed for long, the running statistics are those of the batch (variance: of 19 of 20).
  for (int step = 0; step < 300; ++step) {
    run(adapter, x, true);
    adapter.follow();
  }
  for (const char* unit : {"1.0", "2.0", "2.1", "3.0", "3.1"}) {
    auto v = tensor_of(adapter, graft::concat("aligner.branch", unit, ".bn.running_var")).value();
    for (double& s : v) s *= 19.0 / 20.0;
  }
  CHECK(variance.value()[0] != 1);
  CHECK(checks::relative_error(run(adapter, x), training) < 1e-9);
}

TEST_CASE("DETRIS takes the width of the text from a file and says what it lacks") {
  graft::StandaloneInit<double> init(3);
  DETRIS adapter(detris_config(), 6, 6, init.context());
  const auto x = checks::random_tensor<double>({22, 6}, 4);
  CHECK_THROWS_WITH(run(adapter, x), Catch::Contains("no text features"));
  adapter.set_text(checks::random_tensor<double>({2, 4, 5}, 5));
  CHECK_THROWS_WITH(run(adapter, x), Catch::Contains("width of 3"));
  const graft::Shape shape{4, 5};
  adapter.before_load(
      [&](std::string_view name) { return name == "aligner.text.weight" ? &shape : nullptr; });
  CHECK(run(adapter, x).size() == x.size());
  CHECK_THROWS_WITH(run(adapter, checks::random_tensor<double>({20, 6}, 4)),
                    Catch::Contains("8 patches"));
  CHECK_THROWS_WITH(graft::DETRISConfig{.adapter_dim = 24}.validate(), Catch::Contains("of 16"));
  CHECK_THROWS_WITH(graft::DETRISConfig{.variant = "audio"}.validate(), Catch::Contains("audio"));
}
