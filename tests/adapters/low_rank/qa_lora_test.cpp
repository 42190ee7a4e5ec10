#include "graft/adapters/low_rank/qa_lora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("QA-LoRA merges into the zero points of its base and leaves the integers") {
  // ŵ = σ (q − z) in groups of 4.
  const auto q = checks::random_tensor<double>({5, 12}, 1, 4),
             zeros = checks::random_tensor<double>({5, 3}, 3);
  auto scales = checks::random_tensor<double>({5, 3}, 2);
  for (double& v : scales) v = std::abs(v) + 0.1;
  const auto weight = [&](const graft::BasicTensor<double>& z) {
    auto w = q.clone();
    for (Index o = 0; o < 5; ++o)
      for (Index i = 0; i < 12; ++i)
        w(o, i) = scales(o, i / 4) * (std::round(q(o, i)) - z(o, i / 4));
    return w;
  };
  const graft::BasicDenseLinear<double> layer(weight(zeros));
  for (const std::string pooling : {"mean", "sum", "peft"}) {
    graft::QALoRAConfig config{.rank = 2, .alpha = 3, .qalora_group_size = 4, .pooling = pooling};
    const auto method = checks::make<graft::BasicQALoRA<double>>(config, checks::site_of(layer));
    checks::randomize(method);
    CHECK(checks::relative_error(weight(method.merged_zeros(scales, zeros)),
                                 merge_linear(layer, method).dense_weight()) < 1e-12);
    CHECK_THROWS_WITH(method.merged_zeros(zeros, q), Catch::Contains("[5, 3]"));
    auto flat = scales.clone();
    flat(1, 1) = 0;
    CHECK_THROWS_WITH(method.merged_zeros(flat, zeros), Catch::Contains("scale 4"));
  }
}

TEST_CASE("QA-LoRA reads a number for each group of inputs, in three units") {
  const auto layer = checks::random_layer<double>(5, 12, 1);
  for (const std::string pooling : {"mean", "sum", "peft"}) {
    graft::QALoRAConfig config;
    config.rank = 2;
    config.alpha = 3;
    config.qalora_group_size = 4;
    config.pooling = pooling;
    const auto method = checks::make<graft::BasicQALoRA<double>>(config, checks::site_of(layer));
    const auto tensors = method.tensors();
    tensors[0].parameter.assign(checks::random_tensor<double>({2, 3}, 4));
    tensors[1].parameter.assign(checks::random_tensor<double>({5, 2}, 5));
    const auto merged = merge_linear(layer, method).dense_weight();
    auto update = merged.clone();
    for (Index i = 0; i < update.size(); ++i) update[i] -= layer.dense_weight()[i];
    CHECK(update(1, 4) == Approx(update(1, 7)));  // of one group
    const double unit = pooling == "mean" ? 1.0 / 4 : pooling == "sum" ? 1.0 : 3.0 / 4;
    double product = 0;
    for (Index k = 0; k < 2; ++k)
      product += tensors[1].parameter.value()(1, k) * tensors[0].parameter.value()(k, 1);
    CHECK(update(1, 5) == Approx(1.5 * unit * product));
  }
  graft::QALoRAConfig config;
  config.pooling = "max";
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("peft"));
}
