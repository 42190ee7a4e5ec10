#include "graft/adapters/prompts/pfedpg.hpp"

#include "adapters/method_checks.hpp"

using graft::Index;
using Generator = graft::BasicPromptGenerator<double>;

TEST_CASE("pFedPG: count, gradients, descriptors of other clients") {
  graft::StandaloneInit<double> init(1);
  const graft::PfedpgConfig config{
      .num_virtual_tokens = 3, .descriptor_tokens = 2, .num_attention_heads = 2};
  const Generator generator(config, 4, init.context());
  CHECK(graft::trainable_elements(generator.tensors()) == 3 * 4 + 2 * 4 + 4 * 16 + 4 * 4);
  checks::randomize(generator, 0.7);
  const auto delta = checks::random_tensor<double>({3, 4}, 2);
  std::vector<graft::BasicParameter<double>> parameters;
  for (const auto& t : generator.tensors()) parameters.push_back(t.parameter);
  const auto error = graft::gradient_check(
      [&](graft::BasicTape<double>& tape) {
        return sum(mul(generator(tape), tape.constant(delta)));
      },
      parameters);
  CHECK(error.relative_error < 1e-7);
  const auto expected = parameters[2].grad().clone();
  for (const auto& p : parameters) p.zero_grad();
  generator.add_gradients(generator.descriptor(), delta);
  CHECK(checks::relative_error(parameters[2].grad(), expected) < 1e-12);
  // A client without a change changes nothing; one with a descriptor of its own leaves the others'.
  for (const auto& p : parameters) p.zero_grad();
  graft::TorchGenerator draws(3);
  const auto other = generator.new_descriptor(draws);
  CHECK(other.shape() == graft::Shape{2, 4});
  generator.add_gradients(other, graft::BasicTensor<double>::zeros({3, 4}));
  for (const double g : parameters[0].grad()) CHECK(g == 0);
  CHECK_FALSE(generator.descriptor().grad());
  CHECK_THROWS_AS(generator.add_gradients(other, other.value()), graft::ShapeError);
  CHECK_THROWS_AS(Generator({.num_attention_heads = 3}, 4, init.context()), graft::ValueError);
  CHECK_THROWS_AS(graft::PfedpgConfig{.descriptor_tokens = 0}.validate(), graft::ValueError);
}

TEST_CASE("pFedPG: one descriptor token gives every prompt the same offset") {
  graft::StandaloneInit<double> init(4);
  const Generator generator({.num_virtual_tokens = 3}, 4, init.context());
  checks::randomize(generator);
  graft::BasicTape<double> tape;
  const auto p = generator(tape).value(), base = generator.tensors()[0].parameter.value();
  for (Index j = 0; j < 4; ++j)
    CHECK(p(2, j) - base(2, j) == Approx(p(0, j) - base(0, j)).margin(1e-12));
}
