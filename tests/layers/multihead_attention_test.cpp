#include "graft/layers/multihead_attention.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/compose/adapter_model.hpp"

using graft::BasicPackedAttention;
using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

namespace {

BasicPackedAttention<double> make(Index dim, Index heads, bool bias = true) {
  const auto none = BasicTensor<double>{};
  return {"mha",
          heads,
          checks::random_tensor<double>({3 * dim, dim}, 1, 0.5),
          bias ? checks::random_tensor<double>({3 * dim}, 2) : none,
          checks::random_tensor<double>({dim, dim}, 3, 0.5),
          bias ? checks::random_tensor<double>({dim}, 4) : none};
}

/// softmax(q kᵀ / √d) v by head, written out.
BasicTensor<double> reference(const BasicPackedAttention<double>& layer,
                              const BasicTensor<double>& x, const BasicTensor<double>& memory,
                              bool causal) {
  const Index batch = x.dim(0), n = x.dim(1), m = memory.dim(1), d = x.cols(),
              heads = layer.heads(), width = d / heads;
  const auto w = layer.in_proj.base().dense_weight(), b = layer.in_proj.base().bias();
  const auto project = [&](const BasicTensor<double>& in, Index row, Index part, Index column) {
    double sum = b ? b[part * d + column] : 0;
    for (Index i = 0; i < d; ++i) sum += in[row * d + i] * w(part * d + column, i);
    return sum;
  };
  auto mixed = BasicTensor<double>::zeros({batch * n, d});
  for (Index s = 0; s < batch; ++s)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < n; ++i) {
        std::vector<double> share(static_cast<std::size_t>(m));
        double total = 0;
        for (Index j = 0; j < m; ++j) {
          if (causal && j > i) continue;
          double score = 0;
          for (Index c = h * width; c < (h + 1) * width; ++c)
            score += project(x, s * n + i, 0, c) * project(memory, s * m + j, 1, c);
          share[static_cast<std::size_t>(j)] =
              std::exp(score / std::sqrt(static_cast<double>(width)));
          total += share[static_cast<std::size_t>(j)];
        }
        for (Index j = 0; j < m; ++j)
          for (Index c = h * width; c < (h + 1) * width; ++c)
            mixed(s * n + i, c) +=
                share[static_cast<std::size_t>(j)] / total * project(memory, s * m + j, 2, c);
      }
  BasicTape<double> tape({.gradients = false});
  return layer.out_proj(tape.constant(mixed)).value().reshape(x.shape());
}

}  // namespace

TEST_CASE("Packed attention is softmax of queries and keys over values, head by head") {
  const bool bias = GENERATE(true, false);
  const auto layer = make(12, 3, bias);
  const auto x = checks::random_tensor<double>({2, 5, 12}, 5);
  const auto memory = checks::random_tensor<double>({2, 7, 12}, 6);
  BasicTape<double> tape({.gradients = false});
  const auto var = tape.constant(x);
  CHECK(checks::relative_error(layer(var).value(), reference(layer, x, x, false)) < 1e-12);
  CHECK(checks::relative_error(layer(var, true).value(), reference(layer, x, x, true)) < 1e-12);
  CHECK(checks::relative_error(layer(var, tape.constant(memory)).value(),
                               reference(layer, x, memory, false)) < 1e-12);
}

TEST_CASE("Gradients of packed attention agree with differences") {
  const auto layer = make(8, 2);
  const graft::BasicParameter<double> x(checks::random_tensor<double>({2, 3, 8}, 5)),
      memory(checks::random_tensor<double>({2, 4, 8}, 6));
  const auto own = [&](BasicTape<double>& tape) {
    return sum(square(layer(tape.parameter(x), true)));
  };
  const auto cross = [&](BasicTape<double>& tape) {
    return sum(square(layer(tape.parameter(x), tape.parameter(memory))));
  };
  CHECK(graft::gradient_check(own, {x}).relative_error < 1e-8);
  CHECK(graft::gradient_check(cross, {x, memory}).relative_error < 1e-8);
}

TEST_CASE("Packed attention of impossible sizes is refused") {
  const auto w = checks::random_tensor<float>({24, 8}, 1),
             o = checks::random_tensor<float>({8, 8}, 2);
  using Layer = graft::PackedAttention;
  CHECK_NOTHROW(Layer("mha", 2, w, {}, o, {}));
  CHECK_THROWS_AS(Layer("mha", 3, w, {}, o, {}), graft::ShapeError);
  CHECK_THROWS_AS(Layer("mha", 2, o, {}, o, {}), graft::ShapeError);
  CHECK_THROWS_AS(Layer("mha", 2, w, {}, w, {}), graft::ShapeError);
}

TEST_CASE("Both projections of packed attention are meant by the path of the module") {
  const auto layer = make(8, 2);
  CHECK(layer.in_proj.path() == "mha");
  CHECK(layer.out_proj.path() == "mha.base_layer.out_proj");
  CHECK(layer.out_proj.target_path == "mha");
}

TEST_CASE(
    "The option bias of an adapter means the output projection alone: in_proj_bias is no bias") {
  const auto registry =
      graft::MethodRegistry<double>().add(graft::MethodList<graft::LoRAMethod<double>>{});
  for (const char* mode : {"lora_only", "all"}) {
    INFO(mode);
    auto layer = make(8, 2);
    graft::BasicSiteTable<double> table;
    table.linear = {&layer.in_proj, &layer.out_proj};
    graft::BasicAdapterModel<double> model(table, registry);
    const auto& set = model.add(
        "default", graft::LoRAConfig{.rank = 2, .target_modules = {"mha"}, .bias = mode}, 1);
    CHECK(set.trainable_elements() == 2 * (8 + 24) + 2 * (8 + 8) + 8);
    std::size_t biases = 0;
    for (const auto& [key, tensor] : set.tensors())
      if (key.ends_with("bias")) {
        ++biases;
        CHECK(key == "base_model.model.mha.base_layer.out_proj.base_layer.bias");
      }
    CHECK(biases == 1);
  }
}
