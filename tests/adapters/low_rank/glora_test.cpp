#include "graft/adapters/low_rank/glora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicGLoRA;
using graft::GLoRA;
using graft::Index;

TEST_CASE("GLoRA in all its forms begins as the identity, differentiates and merges") {
  for (const char* ab : {"lora", "vector", "constant", "none"})
    for (const char* c : {"lora", "vector", "none"})
      for (const char* de : {"vector", "constant", "none"}) {
        if (std::string(ab) == "none" && std::string(c) == "none" && std::string(de) == "none")
          continue;
        INFO(ab << ' ' << c << ' ' << de);
        const graft::GLoRAConfig config{
            .rank = 2, .config_a_b = ab, .config_c = c, .config_d_e = de};
        CHECK(checks::change_at_init<BasicGLoRA<double>>(config, 5, 6) < 1e-13);
        CHECK(checks::gradient_error<BasicGLoRA<double>>(config, 5, 6) < 1e-7);
        CHECK(checks::merge_error<GLoRA>(config, 5, 6) < 1e-5);
      }
  CHECK(checks::merge_error<GLoRA>({.rank = 2}, 5, 6, false) < 1e-5);
  CHECK(checks::trained<GLoRA>({.rank = 2}, 10, 12) == 2 * 2 * (10 + 12) + 2 * (12 + 1) + 2);
  CHECK_THROWS_WITH(checks::trained<GLoRA>({.config_c = "constant"}), Catch::Contains("config_C"));
}

TEST_CASE("GLoRA changes weight and bias by its formula") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto method =
      checks::make<BasicGLoRA<double>>({.rank = 2, .config_d_e = "vector"}, checks::site_of(layer));
  checks::randomize(method);
  std::map<std::string, graft::BasicTensor<double>> t;
  for (const auto& entry : method.tensors()) t[entry.name] = entry.parameter.value();
  const auto product = [&](const std::string& name, Index i, Index j) {
    double v = 0;
    for (Index k = 0; k < 2; ++k) v += t[name + ".Xd"](i, k) * t[name + ".Xu"](k, j);
    return v;
  };
  const auto merged = merge_linear(layer, method);
  for (Index o = 0; o < 5; ++o) {
    const double b = layer.bias()[o];
    double bias = b + b * t["glora_D.X"][o] + t["glora_E.X"][o];
    for (Index i = 0; i < 6; ++i) {
      const double w = layer.dense_weight()(o, i);
      CHECK(merged.dense_weight()(o, i) ==
            Approx(w + w * product("glora_A", o, i) + product("glora_B", o, i)));
      bias += w * product("glora_C", i, 0);
    }
    CHECK(merged.bias()[o] == Approx(bias));
  }
}
