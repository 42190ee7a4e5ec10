#include "graft/adapters/low_rank/portllm.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

TEST_CASE("patches add up with their strengths, train nothing and merge") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto make = [&](std::vector<double> strengths) {
    graft::PortLLMConfig config;
    config.rank = 2;
    config.alpha = 3;
    config.strengths = std::move(strengths);
    return checks::make<graft::BasicPortLLM<double>>(config, checks::site_of(layer));
  };
  const auto method = make({1, -0.5});
  CHECK(graft::trainable_elements(method.tensors()) == 0);
  const auto x = checks::random_tensor<double>({4, 6}, 2);
  CHECK(checks::relative_error(checks::output(method, layer, x), checks::base_output(layer, x)) ==
        0);
  unsigned seed = 3;
  for (const auto& t : method.tensors())
    t.parameter.assign(checks::random_tensor<double>(t.parameter.shape(), seed++));
  const auto both = checks::output(method, layer, x);
  CHECK(checks::relative_error(checks::base_output(merge_linear(layer, method), x), both) < 1e-12);
  // The other order of the patches.
  const auto other = make({-0.5, 1});
  for (std::size_t i = 0; i < 4; ++i)
    other.tensors()[i].parameter.assign(method.tensors()[(i + 2) % 4].parameter.value());
  CHECK(checks::relative_error(checks::output(other, layer, x), both) < 1e-12);
  CHECK(checks::relative_error(both, checks::base_output(layer, x)) > 0.1);
}

TEST_CASE("a file decides how many patches there are") {
  const auto layer = checks::random_layer<float>(5, 6, 1);
  auto method = checks::make<graft::PortLLM>({.rank = 2}, checks::site_of(layer));
  const graft::Shape shape{2, 6};
  method.before_load([&](std::string_view name) {
    return name == "patch0.lora_A.weight" || name == "patch1.lora_A.weight" ? &shape : nullptr;
  });
  CHECK(method.patches() == 2);
  CHECK(method.tensors().size() == 4);
}
