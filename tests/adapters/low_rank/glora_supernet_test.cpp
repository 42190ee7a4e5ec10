#include "graft/adapters/low_rank/glora_supernet.hpp"

#include <catch2/catch.hpp>
#include <set>

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("GLoRA's supernet trains paths of its own in each step and layer, then goes back") {
  const auto layer = checks::random_layer<double>(5, 9, 1);
  graft::GLoRASupernetConfig config;
  config.supernet = true;
  config.layer_paths["b"] = config.paths;
  config.layer_paths["b"]["A"] = "none";
  using Method = graft::GLoRASupernetMethod<double>;
  const auto parts = checks::placed<Method>(config, layer, {"a", "b"});
  const auto methods = graft::methods_of<graft::BasicGLoRASupernet<double>>(parts);
  const auto procedure = Method::procedure(config, parts);
  std::map<std::string, std::set<std::string>> seen;
  Index differ = 0;
  for (Index step = 1; step <= 60; ++step) {
    const graft::StepInfo info{step, 60, 0.1};
    procedure->before_step(info);
    for (const auto& [tensor, path] : methods[0]->paths()) seen[tensor].insert(path);
    differ += methods[0]->paths() != methods[1]->paths();
    procedure->after_step(info);
    CHECK(methods[0]->paths() == config.paths);
    CHECK(methods[1]->paths().at("A") == "none");
  }
  CHECK(differ > 50);
  for (const char* tensor : graft::glora::kTensors)
    CHECK(seen.at(tensor).size() == graft::glora::choices(tensor).size());
  config.supernet = false;
  CHECK(Method::procedure(config, parts) == nullptr);
  config.layer_paths["c"] = config.paths;
  CHECK_THROWS_WITH(Method::procedure(config, parts), Catch::Contains("'c'"));
}

TEST_CASE("GLoRA's supernet trains something in each step, of one layer too") {
  const auto layer = checks::random_layer<double>(5, 9, 1);
  graft::GLoRASupernetConfig config;
  config.supernet = true;
  using Method = graft::GLoRASupernetMethod<double>;
  const auto parts = checks::placed<Method>(config, layer, {"a"});
  const auto method = graft::methods_of<graft::BasicGLoRASupernet<double>>(parts)[0];
  const auto procedure = Method::procedure(config, parts);
  bool always = true;
  for (Index step = 1; step <= 3000; ++step) {
    procedure->before_step({step, 3000, 0.1});
    always = always && graft::glora::trains(method->paths());
  }
  CHECK(always);
  CHECK_FALSE(graft::glora::trains({{"A", "none"}, {"D", "vector"}}));
}

TEST_CASE("a path of GLoRA's supernet that is not drawn gets no gradient") {
  const auto layer = checks::random_layer<double>(5, 9, 1);
  const auto method =
      checks::make<graft::BasicGLoRASupernet<double>>({.rank = 2}, checks::site_of(layer));
  checks::randomize(method);
  method.set_paths(
      {{"A", "none"}, {"B", "vector"}, {"C", "none"}, {"D", "none"}, {"E", "constant"}});
  graft::BasicTape<double> tape;
  tape.backward(
      sum(square(method.apply(layer, tape.constant(checks::random_tensor<double>({4, 9}, 2))))));
  for (const auto& t : method.tensors())
    CHECK(bool(t.parameter.grad()) == (t.name == "glora_B.Xd" || t.name == "glora_E.X"));
  CHECK_THROWS_WITH(method.set_paths({{"A", "constant"}, {"B", "none"}, {"C", "constant"}}),
                    Catch::Contains("'constant' of C"));
}

TEST_CASE("the search of GLoRA finds better paths than chance") {
  const auto score = [](const std::vector<graft::glora::Paths>& layers) {
    double good = 0;
    for (const auto& paths : layers)
      good += (paths.at("A") == "lora") + (paths.at("C") == "none") + (paths.at("E") == "vector");
    return good;
  };
  double by_chance = 0;
  Index asked = 0;
  graft::TorchGenerator generator(5);
  const auto best = graft::glora::search(
      {.layers = 6},
      [&](const std::vector<graft::glora::Paths>& layers) {
        if (asked++ < 50) by_chance = std::max(by_chance, score(layers));
        return score(layers);
      },
      generator);
  CHECK(asked == 50 + 20 * 50);
  CHECK(best.fitness == score(best.layers));
  CHECK(best.fitness > by_chance + 2);
  for (const auto& paths : best.layers) CHECK_NOTHROW(graft::glora::check(paths));
  CHECK_THROWS_AS(graft::glora::search({.layers = 0}, score, generator), graft::ValueError);
}
