#include "graft/adapters/low_rank/mtlora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using Method = graft::BasicMTLoRA<double>;

namespace {

graft::MTLoRAConfig config_of(const std::string& mode, bool trainable_scale = false) {
  graft::MTLoRAConfig config;
  config.ranks = {{"shared", 4}, {"depth", 2}, {"seg", 3}};
  config.shared_mode = mode;
  config.trainable_scale = trainable_scale;
  return config;
}

/// Worst error of the gradients of all outputs together.
double error_of_outputs(const graft::MTLoRAConfig& config) {
  const auto layer = checks::random_layer<double>(5, 6, 3);
  const auto method = checks::make<Method>(config, checks::site_of(layer));
  checks::randomize(method);
  std::vector<graft::BasicParameter<double>> parameters;
  for (const unsigned seed : {4U, 5U})
    parameters.emplace_back(checks::random_tensor<double>({3, 6}, seed));
  for (const auto& t : method.tensors()) parameters.push_back(t.parameter);
  return graft::gradient_check(
             [&](graft::BasicTape<double>& tape) {
               const auto y = method.outputs(layer, tape.parameter(parameters[0]),
                                             {{"seg", tape.parameter(parameters[1])}});
               auto total = sum(square(y.shared));
               for (const auto& [name, output] : y.tasks)
                 total = add(total, sum(mul(output, square(output))));
               return total;
             },
             parameters)
      .relative_error;
}

}  // namespace

TEST_CASE("MTLoRA's shared output begins as the identity and merges; all gradients are right") {
  for (const char* mode : {"matrix", "matrixv2"}) {
    CHECK(checks::change_at_init<Method>(config_of(mode)) < 1e-12);
    CHECK(checks::merge_error<graft::MTLoRA>(config_of(mode)) < 1e-5);
    CHECK(checks::trained<graft::MTLoRA>(config_of(mode), 10, 12) == 9 * 22);
  }
  CHECK(checks::trained<graft::MTLoRA>(config_of("matrix", true), 10, 12) == 9 * 22 + 3);
  CHECK(checks::trained<graft::MTLoRA>(config_of("addition"), 10, 12) == 5 * 22 + 20);
  CHECK(checks::merge_error<graft::MTLoRA>(config_of("matrix", true)) < 1e-5);
  for (const char* mode : {"matrix", "matrixv2", "addition"}) {
    CHECK(error_of_outputs(config_of(mode)) < 1e-6);
    CHECK(error_of_outputs(config_of(mode, true)) < 1e-6);
  }
}

TEST_CASE("a task of MTLoRA has a path of its own, which merges on the shared input") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto method = checks::make<Method>(config_of("matrixv2"), checks::site_of(layer));
  checks::randomize(method);
  const auto x = checks::random_tensor<double>({4, 6}, 2);
  graft::BasicTape<double> tape;
  const auto y = method.outputs(layer, tape.constant(x));
  const auto merged = merge_linear(layer, method.task("seg"));
  CHECK(checks::relative_error(checks::base_output(merged, x), y.tasks.at("seg").value()) < 1e-12);
  CHECK(checks::relative_error(y.tasks.at("depth").value(), y.tasks.at("seg").value()) > 0.01);
  CHECK_THROWS_AS(method.task("normals"), graft::ValueError);
  CHECK_THROWS_WITH(
      merge_linear(layer, checks::make<Method>(config_of("addition"), checks::site_of(layer))),
      Catch::Contains("LayerNorm"));
  auto config = config_of("sum");
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("shared_mode 'sum'"));
  config.shared_mode = "matrix";
  config.ranks.erase("shared");
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("'shared'"));
}
