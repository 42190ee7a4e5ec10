#include "graft/adapters/low_rank/relaxed_recursive.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using RelaxedRecursive = graft::BasicRelaxedRecursive<double>;

namespace {

std::shared_ptr<graft::RecursiveLayer<double>> block(bool trained) {
  const auto layer = checks::random_layer<double>(5, 6, 21);
  auto shared = std::make_shared<graft::RecursiveLayer<double>>(
      graft::RecursiveLayer<double>{"shared.0.proj", layer, {}, {}});
  if (trained) {
    shared->weight = graft::BasicParameter<double>(layer.dense_weight().clone());
    shared->bias = graft::BasicParameter<double>(layer.bias().clone());
  }
  return shared;
}

}  // namespace

TEST_CASE("a depth with factors of full rank is the original layer, on a looped block") {
  const auto layer = checks::random_layer<double>(5, 6, 1, false);
  RelaxedRecursive method(5);
  const auto shared = block(false);
  method.loop(shared, layer.dense_weight());
  const auto x = checks::random_tensor<double>({4, 6}, 2);
  auto expected = checks::base_output(layer, x).clone();
  for (Index i = 0; i < expected.size(); ++i) expected[i] += shared->frozen.bias()[i % 5];
  CHECK(checks::relative_error(checks::output(method, layer, x), expected) < 1e-12);
  CHECK(graft::trainable_elements(method.tensors()) == 5 * 11);
  // Without factors it is the block.
  RelaxedRecursive bare(0);
  bare.loop(shared, {});
  CHECK(checks::relative_error(checks::output(bare, layer, x),
                               checks::base_output(shared->frozen, x)) < 1e-12);
  CHECK(checks::relative_error(checks::output(bare, layer, x), expected) > 0.1);
}

TEST_CASE("gradients of a depth are right, with the block frozen and trained; it merges") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  for (const bool trained : {false, true}) {
    RelaxedRecursive method(2);
    method.loop(block(trained), layer.dense_weight());
    CHECK(graft::trainable_elements(method.tensors()) == 2 * 11 + (trained ? 35 : 0));
    const auto x = checks::random_tensor<double>({4, 6}, 2);
    std::vector<graft::BasicParameter<double>> parameters{graft::BasicParameter<double>(x)};
    for (const auto& t : method.tensors()) parameters.push_back(t.parameter);
    CHECK(graft::gradient_check(
              [&](graft::BasicTape<double>& tape) {
                return sum(square(method.apply(layer, tape.parameter(parameters[0]))));
              },
              parameters)
              .relative_error < 1e-6);
    CHECK(checks::relative_error(checks::base_output(merge_linear(layer, method), x),
                                 checks::output(method, layer, x)) < 1e-12);
  }
}

TEST_CASE("blocks are means of their layers, or layers at even distances, or the first ones") {
  std::vector<graft::BasicTensor<double>> layers;
  for (int k = 0; k < 7; ++k) layers.push_back(graft::BasicTensor<double>::full({2, 2}, k));
  CHECK(graft::recursive_block(layers, 0, 3, "average")[0] == 3);
  CHECK(graft::recursive_block(layers, 1, 3, "average")[3] == 2.5);
  CHECK(graft::recursive_block(layers, 1, 3, "stepwise")[0] == 3);
  CHECK(graft::recursive_block(layers, 2, 3, "stepwise")[0] == 6);
  CHECK(graft::recursive_block(layers, 0, 1, "stepwise")[0] == 0);
  CHECK(graft::recursive_block(layers, 1, 3, "lower")[0] == 1);
  graft::RelaxedRecursiveConfig config;
  CHECK(config.blocks(7) == 3);
  config.shared_blocks = 8;
  CHECK_THROWS_AS(config.blocks(7), graft::ValueError);
  config.init = "upper";
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("init 'upper'"));
}

TEST_CASE("a looped norm takes the place of the layer's, also merged") {
  graft::BasicNorm<double> own, looped;
  own.weight = graft::BasicTensor<double>::ones({4});
  looped.weight = checks::random_tensor<double>({4}, 1);
  for (const bool trained : {false, true}) {
    const graft::RecursiveNorm<double> norm("shared.0.norm", looped, trained);
    graft::BasicTape<double> tape;
    const auto x = tape.constant(checks::random_tensor<double>({3, 4}, 2));
    CHECK(checks::relative_error(norm.apply(own, x).value(), looped(x).value()) == 0);
    CHECK(checks::relative_error((*norm.merged(own))(x).value(), looped(x).value()) == 0);
    CHECK(norm.tensors().size() == (trained ? 1 : 0));
  }
}
