#include "graft/adapters/selection/noah.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::Index;
namespace noah = graft::noah;

TEST_CASE("a slice of NOAH's supernet is the small module with the same weights") {
  const auto layer = checks::random_layer<double>(7, 9, 1);
  graft::NOAHConfig config;
  config.max_prompt = config.max_rank = config.max_adapter = 6;
  const auto widths = std::make_shared<noah::Widths>(noah::Widths{{2}, {3}, {4}});
  graft::StandaloneInit<double> init(1);
  const graft::BasicNOAHLoRA<double> lora(config, 9, 7, 0, widths, init.context());
  const graft::BasicNOAHAdapter<double> adapter(config, 7, 0, nullptr, widths, init.context());
  const auto x = checks::random_tensor<double>({5, 9}, 2);
  CHECK(checks::relative_error(checks::output(lora, layer, x), checks::base_output(layer, x)) == 0);
  checks::randomize(lora);
  checks::randomize(adapter);

  const auto small = std::make_shared<noah::Widths>(noah::Widths{{2}, {3}, {4}});
  graft::NOAHConfig narrow = config;
  narrow.max_rank = 3;
  const graft::BasicNOAHLoRA<double> copy(narrow, 9, 7, 0, small, init.context());
  const auto a = lora.tensors()[0].parameter.value(), b = lora.tensors()[1].parameter.value();
  auto small_a = BasicTensor<double>::empty({3, 9}), small_b = BasicTensor<double>::empty({7, 3});
  for (Index i = 0; i < 27; ++i) small_a[i] = a[i];
  for (Index i = 0; i < 7; ++i)
    for (Index k = 0; k < 3; ++k) small_b(i, k) = b(i, k);
  copy.tensors()[0].parameter.assign(small_a);
  copy.tensors()[1].parameter.assign(small_b);
  CHECK(checks::relative_error(checks::output(lora, layer, x), checks::output(copy, layer, x)) <
        1e-12);

  // What lies beyond the widths has no gradient.
  graft::BasicTape<double> tape;
  const auto h = adapter.apply({}, lora.apply(layer, tape.leaf(x)), {});
  tape.backward(sum(mul(h, h)));
  const auto grad = adapter.tensors()[0].parameter.grad();
  for (Index i = 0; i < grad.size(); ++i) CHECK((grad[i] != 0) == (i < 4 * 7));
  widths->rank = {0};
  CHECK(checks::relative_error(checks::output(lora, layer, x), checks::base_output(layer, x)) == 0);
}

TEST_CASE("prompts take the place of those of the block before") {
  graft::BasicTape<double> tape({.gradients = false});
  const auto x = tape.constant(checks::random_tensor<double>({2, 5, 3}, 1));
  const graft::BasicParameter<double> prompts(checks::random_tensor<double>({4, 3}, 2));
  using Prompts = graft::BasicNOAHPrompts<double>;
  const auto y = Prompts::with(x, prompts, 3, 1, 2).value();
  REQUIRE(y.shape() == graft::Shape{2, 6, 3});
  for (Index j = 0; j < 3; ++j) {
    CHECK(y[j] == x.value()[j]);
    CHECK(y[3 + j] == prompts.value()[j]);
    CHECK(y[12 + j] == x.value()[9 + j]);
    CHECK(y[18 + 15 + j] == x.value()[15 + 12 + j]);
  }
}

TEST_CASE("widths are one number or a list of the blocks") {
  using graft::NOAHConfig;
  CHECK(NOAHConfig::widths("r", Index{4}, 10, 3) == std::vector<Index>{4, 4, 4});
  const graft::ConfigValue list = graft::ConfigValue::List{graft::ConfigValue(Index{1}), Index{5}};
  CHECK(NOAHConfig::widths("r", list, 10, 2) == std::vector<Index>{1, 5});
  CHECK_THROWS_WITH(NOAHConfig::widths("r", list, 10, 3), Catch::Contains("for 3 blocks"));
  CHECK_THROWS_WITH(NOAHConfig::widths("r", list, 4, 2), Catch::Contains("0 to 4"));
}

TEST_CASE("NOAH counts what acts") {
  CHECK(noah::parameters({5, 0, 10, 0, 0, 50}, 32) == 5 * 32 + 4 * 10 * 32 + 2 * 50 * 32 + 50 + 32);
  CHECK_THROWS_AS(noah::parameters({1, 2}, 32), graft::ShapeError);
}

TEST_CASE("the search of NOAH finds large widths below its limit") {
  noah::SearchConfig config;
  config.blocks = 3;
  config.hidden_size = 8;
  config.depths = {1, 3};
  config.parameter_limit = 4000;
  config.population = 12;
  config.parents = 4;
  config.mutations = config.crossovers = 6;
  config.generations = 8;
  graft::TorchGenerator generator(3);
  Index evaluated = 0;
  const auto fitness = [&](const noah::Genes& genes) {
    ++evaluated;
    CHECK(noah::parameters(genes, 8) <= 4000);
    double sum = 0;
    for (std::size_t i = 3; i < 6; ++i) sum += static_cast<double>(genes[i]);  // ranks alone
    return sum;
  };
  const auto best = noah::search(config, fitness, generator);
  CHECK(evaluated == 12 + 8 * 12);
  CHECK(best.fitness > 50);
  CHECK(best.genes.size() == 9);
  config.parameter_limit = -1;
  CHECK_THROWS_WITH(noah::search(config, fitness, generator), Catch::Contains("no candidate"));
}
