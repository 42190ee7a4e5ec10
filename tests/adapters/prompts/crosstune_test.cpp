#include "graft/adapters/prompts/crosstune.hpp"

#include "adapters/method_checks.hpp"

using checks::random_tensor;

TEST_CASE("CrossTune: count and gradients, masked tokens do not count") {
  graft::StandaloneInit<double> init(1);
  const graft::BasicCrosstune<double> module({.num_heads = 2}, 6, init.context());
  CHECK(graft::trainable_elements(module.tensors()) == 4 * 42 + 3 * 6 + 1);
  checks::randomize(module, 0.5);
  const auto mask = std::make_shared<std::vector<unsigned char>>(
      std::vector<unsigned char>{1, 1, 0, 1, 1, 1, 1, 1});
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(random_tensor<double>({2, 4, 6}, 2)),
      graft::BasicParameter<double>(random_tensor<double>({3, 6}, 3))};
  for (const auto& t : module.tensors())
    // The bias of keys changes nothing: a softmax does not see it.
    if (t.name.find("key.bias") == std::string::npos) parameters.push_back(t.parameter);
  const auto weights = random_tensor<double>({2, 3}, 4);
  const auto check = graft::gradient_check(
      [&](graft::BasicTape<double>& tape) {
        return sum(
            mul(module.apply(tape.parameter(parameters[0]), tape.parameter(parameters[1]), mask),
                tape.constant(weights)));
      },
      parameters);
  CHECK(check.relative_error < 1e-6);
  for (graft::Index j = 0; j < 6; ++j) CHECK(parameters[0].grad()[2 * 6 + j] == 0);
  CHECK_THROWS_WITH(graft::BasicCrosstune<double>({.num_heads = 4}, 6, init.context()),
                    Catch::Contains("4 heads"));
}

TEST_CASE("CrossTune: classes in another order have their scores in that order") {
  graft::StandaloneInit<float> init(1);
  const graft::Crosstune module({.num_heads = 3}, 6, init.context());
  graft::Tape tape({.gradients = false});
  const auto h = tape.constant(random_tensor<float>({2, 4, 6}, 2)),
             e = tape.constant(random_tensor<float>({3, 6}, 3));
  const auto y = module.apply(h, e).value(),
             z = module.apply(h, gather_rows(e, std::vector<graft::Index>{2, 0, 1})).value();
  for (graft::Index b = 0; b < 2; ++b) {
    CHECK(z(b, 0) == Approx(y(b, 2)));
    CHECK(z(b, 1) == Approx(y(b, 0)));
  }
}

TEST_CASE("CrossTune keeps the synthetic examples whose label is likeliest and likely enough") {
  const auto p = graft::BasicTensor<double>::from(
      std::vector<double>{0.6, 0.3, 0.1, 0.6, 0.3, 0.1, 0.4, 0.3, 0.3, 0, 0.5, 0.5}, {4, 3});
  const std::vector<std::int64_t> labels{0, 1, 0, 2};
  CHECK(graft::kept_examples(p, std::span(labels)) == std::vector<graft::Index>{0, 3});
  CHECK(graft::kept_examples(p, std::span(labels), 0.2) == std::vector<graft::Index>{0, 2, 3});
  const std::vector<std::int64_t> wrong{0, 1, 3, 2};
  CHECK_THROWS_WITH(graft::kept_examples(p, std::span(wrong)), Catch::Contains("label 3 of 3"));
  CHECK_THROWS_AS(graft::kept_examples(p, std::span(wrong).first(2)), graft::ShapeError);
}
