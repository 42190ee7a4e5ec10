#include "graft/adapters/low_rank/vblora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicVBLoRA;
using graft::Index;
using graft::VBLoRA;

namespace {
const graft::VBLoRAConfig kConfig{.rank = 3, .num_vectors = 7, .vector_length = 4, .topk = 3};
}

TEST_CASE("VB-LoRA differentiates, merges and is no identity") {
  CHECK(checks::change_at_init<BasicVBLoRA<double>>(kConfig, 8, 12) > 1e-7);
  CHECK(checks::gradient_error<BasicVBLoRA<double>>(kConfig, 8, 12, 1.0) < 1e-6);
  CHECK(checks::merge_error<VBLoRA>(kConfig, 8, 12) < 1e-5);
  CHECK(checks::trained<VBLoRA>(kConfig, 8, 12) == 3 * (12 + 8) / 4 * 7 + 7 * 4);
  CHECK_THROWS_WITH(checks::trained<VBLoRA>(kConfig, 8, 10), Catch::Contains("does not divide"));
  CHECK_THROWS_WITH(
      checks::trained<VBLoRA>({.num_vectors = 3, .vector_length = 4, .topk = 4}, 8, 12),
      Catch::Contains("topk 4"));
}

TEST_CASE("VB-LoRA with every vector chosen mixes by the whole softmax") {
  auto config = kConfig;
  config.topk = 7;
  const auto layer = checks::random_layer<double>(4, 8, 1);
  const auto method = checks::make<BasicVBLoRA<double>>(config, checks::site_of(layer));
  checks::randomize(method, 1);
  const auto t = method.tensors();
  const auto a = t[0].parameter.value(), b = t[1].parameter.value(), bank = t[2].parameter.value();
  const auto mixed = [&](const graft::BasicTensor<double>& logits, Index row, Index at) {
    double total = 0, value = 0;
    for (Index v = 0; v < 7; ++v) {
      total += std::exp(logits[row * 7 + v]);
      value += std::exp(logits[row * 7 + v]) * bank(v, at);
    }
    return value / total;
  };
  const auto merged = merge_linear(layer, method).dense_weight();
  for (Index o = 0; o < 4; ++o)
    for (Index i = 0; i < 8; ++i) {
      double delta = 0;
      for (Index k = 0; k < 3; ++k) delta += mixed(b, k, o) * mixed(a, k * 2 + i / 4, i % 4);
      CHECK(merged(o, i) - layer.dense_weight()(o, i) == Approx(delta));
    }
}

TEST_CASE("VB-LoRA read from the chosen vectors alone computes the same") {
  for (const Index topk : {1, 2, 3}) {
    auto config = kConfig;
    config.topk = topk;
    config.save_only_topk_weights = true;
    const auto layer = checks::random_layer<float>(8, 12, 1);
    const auto method = checks::make<VBLoRA>(config, checks::site_of(layer));
    checks::randomize(method, 1);
    auto loaded = checks::make<VBLoRA>(config, checks::site_of(layer), 9);
    const auto files = method.file_tensors();
    loaded.before_load([&](std::string_view name) -> const graft::Shape* {
      for (const auto& t : files)
        if (t.name == name) return t.index ? &t.index->shape : &t.parameter.shape();
      return nullptr;
    });
    for (auto& t : loaded.tensors()) {
      if (!t.saved) continue;
      for (const auto& f : files) {
        if (f.name != t.name) continue;
        if (t.index)
          t.index->values = f.index->values;
        else
          t.parameter.assign(f.parameter.value().clone());
      }
    }
    loaded.after_load();
    const auto x = checks::random_tensor<float>({3, 12}, 2);
    CHECK(checks::relative_error(checks::output(loaded, layer, x),
                                 checks::output(method, layer, x)) < 1e-6);
    CHECK(files[0].index->type == graft::IndexTensor::Type::u8);
  }
}
