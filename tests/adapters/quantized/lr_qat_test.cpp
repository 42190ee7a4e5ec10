#include "graft/adapters/quantized/lr_qat.hpp"

#include "adapters/method_checks.hpp"

using graft::Index;
using graft::LRQAT;
using graft::LRQATConfig;

TEST_CASE("LR-QAT starts as the rounded layer and merges into integers and a scale") {
  const auto layer = checks::random_layer<float>(10, 12, 1);
  const auto w = layer.dense_weight();
  for (const Index group : {Index{0}, Index{4}}) {
    const LRQATConfig config{.rank = 3, .alpha = 2, .bits = 4, .group_size = group};
    const LRQAT method(config, layer);
    const Index size = group == 0 ? 12 : group;
    const auto scale = method.tensors()[2].parameter.value();
    CHECK(scale.shape() == (group == 0 ? graft::Shape{10} : graft::Shape{10, 3}));
    const auto merged = merge_linear(layer, method).dense_weight();
    const auto codes = method.codes();
    const auto fixed = method.fixed_point();
    for (Index i = 0; i < w.size(); ++i) {
      const auto k = static_cast<std::size_t>(i);
      CHECK(merged[i] == Approx(scale[i / size] * static_cast<float>(codes[k])).margin(1e-6));
      CHECK(std::abs(static_cast<int>(codes[k])) <= 8);
      // Fixed point with 4 bits of fraction.
      const float steps = w[i] / scale[i / size];
      if (std::abs(steps) < 7.5F)
        CHECK(std::abs(static_cast<float>(fixed[k]) / 16 - steps) <= 1.001F / 32);
    }
    CHECK(checks::trained<LRQAT>(config) == 3 * (10 + 12) + scale.size());
    CHECK(checks::merge_error<LRQAT>(config) < 1e-5);
  }
}

TEST_CASE("The first scale of LR-QAT has the smallest error of those that were tried") {
  const auto w = checks::random_tensor<double>({7, 20}, 3);
  for (const double p : {2.0, 3.5}) {
    const std::vector<double> ratios = {1.0, 0.9, 0.75, 0.6, 0.4};
    graft::BasicTensor<double> errors;
    const auto scale = graft::lr_qat_scale(w, 3, 10, p, ratios, &errors);
    REQUIRE(errors.shape() == graft::Shape{5, 7, 2});
    for (Index k = 0; k < 14; ++k) {
      double error = 0, least = errors[k];
      for (Index i = k * 10; i < (k + 1) * 10; ++i) {
        const double s = scale[k];
        const double code = std::min(std::max(std::nearbyint(w[i] / s), -4.0), 3.0);
        error += std::pow(std::abs(w[i] - s * code), p);
      }
      for (Index r = 0; r < 5; ++r) least = std::min(least, errors[r * 14 + k]);
      CHECK(error == Approx(least));
    }
  }
}

TEST_CASE("Every down-cast of LR-QAT keeps the weight to its precision") {
  const auto layer = checks::random_layer<double>(8, 16, 4);
  const auto exact = merge_linear(
      layer, graft::BasicLRQAT<double>({.rank = 2, .bits = 8, .downcast = "none"}, layer));
  const auto x = checks::random_tensor<double>({5, 16}, 5);
  for (const auto& [name, bits] :
       {std::pair<const char*, Index>{"Q4.4", 4}, {"Q3.5", 3}, {"bf16", 4}, {"int", 4}}) {
    CAPTURE(name);
    const graft::BasicLRQAT<double> method({.rank = 2, .bits = bits, .downcast = name}, layer);
    CHECK(checks::relative_error(checks::output(method, layer, x), checks::base_output(exact, x)) <
          (bits == 4 ? 0.2 : 0.4));
    CHECK(method.fixed_point().empty() == (std::string(name) == "bf16"));
  }
}

TEST_CASE("Without a down-cast LR-QAT keeps as many bits before the point as its integers have") {
  const auto layer = checks::random_layer<double>(6, 10, 3);
  for (const auto& [bits, name] :
       {std::pair<Index, const char*>{2, "Q2.6"}, {3, "Q3.5"}, {4, "Q4.4"}, {8, "Q8.0"}}) {
    CAPTURE(bits);
    const graft::BasicLRQAT<double> method({.rank = 2, .bits = bits}, layer);
    const graft::BasicLRQAT<double> named({.rank = 2, .bits = bits, .downcast = name}, layer);
    CHECK(method.fixed_point() == named.fixed_point());
  }
}

TEST_CASE("LR-QAT refuses unknown down-casts and groups that do not divide the inputs") {
  const auto layer = checks::random_layer<float>(4, 10, 1);
  for (const char* name : {"Q4.5", "q4.4", "int8"})
    CHECK_THROWS_WITH(LRQAT({.downcast = name}, layer), Catch::Contains("downcast"));
  CHECK_THROWS_WITH(LRQAT({.group_size = 4}, layer), Catch::Contains("group_size 4"));
  CHECK_THROWS_WITH(LRQAT({.ratios = {}}, layer), Catch::Contains("ratios"));
  LRQAT method({.rank = 1}, layer);
  CHECK_THROWS_WITH(method.set_fixed_point({1, 2}, 4), Catch::Contains("2 codes for [4, 10]"));
}
