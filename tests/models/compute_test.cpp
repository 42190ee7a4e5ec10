#include "graft/models/compute.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/models/llama.hpp"

using graft::DenseLinear;
using graft::Index;
using graft::QuantizedLinear;
using graft::Tensor;
using graft::kernels::Compute;

namespace {

/// Random weights; layers whose input is a multiple of 32 are quantised.
class RandomWeights final : public graft::models::BasicWeights<float> {
 public:
  bool has(const std::string& name) const override { return !name.ends_with(".bias"); }
  Tensor tensor(const std::string&, const graft::Shape& shape) const override {
    return Tensor::ones(shape);
  }
  graft::AnyLinear linear(const std::string&, Index out, Index in) const override {
    const auto w = checks::random_tensor<float>({out, in}, ++seed_, 0.2);
    if (in % 32 != 0) return DenseLinear(w);
    const auto format = graft::quant::Format::q8_0;
    auto blocks = std::make_shared<std::vector<std::byte>>(
        static_cast<std::size_t>(out * graft::quant::row_bytes(format, in)));
    graft::quant::encode(format, w.data(), w.size(), blocks->data());
    return QuantizedLinear(format, blocks->data(), out, in, {}, blocks);
  }
  graft::EmbeddingTable embedding(const std::string&, Index rows, Index dim) const override {
    return graft::EmbeddingTable(checks::random_tensor<float>({rows, dim}, 1000));
  }

 private:
  mutable unsigned seed_ = 0;
};

graft::models::LlamaConfig small() {
  graft::models::LlamaConfig config;
  config.vocabulary = 61;
  config.hidden_size = 32;
  config.intermediate_size = 45;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.rope.dim = 8;
  config.tied_head = false;
  return config;
}

float relative(const Tensor& a, const Tensor& b) {
  return static_cast<float>(checks::relative_error(a, b));
}

}  // namespace

TEST_CASE("A way to multiply has a name, and auto follows the processor") {
  using graft::models::compute_named;
  CHECK(compute_named("f32") == Compute::f32);
  CHECK(compute_named("bf16") == Compute::bf16);
  CHECK(compute_named("f32-split") == Compute::f32_split);
  CHECK((compute_named("auto") == Compute::bf16) == graft::kernels::bf16_is_fast());
  CHECK_THROWS_AS(compute_named("f16"), graft::ValueError);
  const auto isa = graft::kernels::active_isa();
  graft::kernels::set_isa(graft::kernels::Isa::baseline);
  CHECK(compute_named("auto") == Compute::f32);
  // Emulated tiles are slow.
  graft::kernels::set_isa(graft::kernels::Isa::amx_emulated);
  CHECK(compute_named("auto") == Compute::f32);
  graft::kernels::set_isa(isa);
}

TEST_CASE("Layers in bf16 compute what the kernels do with rounded factors, both ways") {
  const Index rows = 37, in = 64, out = 41;
  const auto w = checks::random_tensor<float>({out, in}, 1),
             x = checks::random_tensor<float>({rows, in}, 2),
             dy = checks::random_tensor<float>({rows, out}, 3);
  const DenseLinear plain(w), rounded = plain.with_compute(Compute::bf16);
  CHECK(plain.compute() == Compute::f32);
  CHECK(rounded.compute() == Compute::bf16);
  graft::kernels::FrozenWeight frozen;
  frozen.out = out;
  frozen.in = in;
  frozen.dense = w.data();
  frozen.row_stride = in;
  auto expected = Tensor::empty({rows, out}), dx_expected = Tensor::empty({rows, in});
  graft::kernels::frozen_forward(frozen, x.data(), rows, in, nullptr, expected.data(), out, false,
                                 nullptr, Compute::bf16);
  graft::kernels::frozen_backward_input(frozen, dy.data(), rows, out, dx_expected.data(), in, false,
                                        nullptr, Compute::bf16);
  auto packed = rounded;
  packed.pack();
  for (const auto& layer : {rounded, packed}) {
    auto y = Tensor::empty({rows, out}), dx = Tensor::empty({rows, in});
    layer.forward(x.matrix(), y.matrix());
    layer.backward_input(dy.matrix(), dx.matrix(), nullptr, false);
    CHECK(relative(y, expected) < 1e-6F);
    CHECK(relative(dx, dx_expected) < 1e-6F);
  }
  auto exact = Tensor::empty({rows, out});
  plain.forward(x.matrix(), exact.matrix());
  CHECK(relative(exact, expected) > 1e-5F);
  CHECK(relative(exact, expected) < 1e-2F);
}

TEST_CASE("A model with activations in 8 bits has nearly the next logits of f32, and its loss") {
  using graft::models::activations_named;
  CHECK(activations_named("f32") == graft::Activations::f32);
  CHECK(activations_named("auto") == graft::Activations::int8);
  CHECK_THROWS_AS(activations_named("int4"), graft::ValueError);
  graft::models::Llama model(small(), RandomWeights());
  graft::models::Batch batch;
  batch.batch = 1;
  batch.seq_len = 12;
  for (Index i = 0; i < 12; ++i) batch.ids.push_back(static_cast<std::int32_t>(i * 7 % 61));
  batch.labels.assign(batch.ids.begin(), batch.ids.end());
  const auto loss = [&] {
    graft::Tape tape({.gradients = false});
    return model.loss(tape, batch).item();
  };
  const auto last = [&] {
    graft::KvCache cache;
    graft::models::Batch token;
    token.batch = token.seq_len = 1;
    Tensor logits;
    for (const auto id : batch.ids) {
      token.ids = {id};
      graft::Tape tape({.gradients = false});
      logits = model.next_logits(tape, token, cache).clone();
    }
    return logits;
  };
  const auto exact = last();
  const float exact_loss = loss();
  // All but the two down projections, whose inputs are no whole number of blocks.
  CHECK(graft::models::set_activations(model, graft::Activations::int8) == 13);
  const auto rounded = last();
  CHECK(relative(rounded, exact) > 1e-5F);
  CHECK(relative(rounded, exact) < 5e-2F);
  CHECK(loss() == exact_loss);
  graft::models::set_activations(model, graft::Activations::f32);
  CHECK(relative(last(), exact) == 0);
}

TEST_CASE("A model in bf16 has nearly the loss and gradients of f32, and goes back to its bits") {
  graft::models::Llama model(small(), RandomWeights());
  graft::models::Batch batch;
  batch.batch = 3;
  batch.seq_len = 17;
  for (Index i = 0; i < 3 * 17; ++i) batch.ids.push_back(static_cast<std::int32_t>(i * 7 % 61));
  batch.labels.assign(batch.ids.begin(), batch.ids.end());
  const auto loss = [&] {
    graft::Tape tape({.gradients = false});
    return model.loss(tape, batch).item();
  };
  const float exact = loss();
  CHECK(graft::models::set_compute(model, Compute::bf16) == 15);
  CHECK(model.head.base().as<QuantizedLinear>()->compute() == Compute::bf16);
  CHECK(model.sites().linear[6]->base().as<DenseLinear>()->compute() == Compute::bf16);
  const float rounded = loss();
  CHECK(rounded != exact);
  CHECK(rounded == Approx(exact).epsilon(5e-3));
  const auto isa = graft::kernels::active_isa();
  graft::kernels::set_isa(graft::kernels::Isa::amx_emulated);
  CHECK(loss() == Approx(exact).epsilon(5e-3));
  graft::models::set_compute(model, Compute::f32_split);
  CHECK(loss() != exact);
  CHECK(loss() == Approx(exact).epsilon(1e-5));
  graft::kernels::set_isa(isa);
  CHECK(graft::models::set_compute(model, Compute::f32) == 15);
  CHECK(loss() == exact);
}
