#include "graft/layers/quantized_linear.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/layers/any_linear.hpp"
#include "layers/encoded.hpp"

using graft::Index;
using graft::QuantizedLinear;
using graft::quant::Format;
using layer_tests::encode;

TEST_CASE("A quantised layer computes what a dense one with the decoded weight computes") {
  const auto format = GENERATE(Format::f16, Format::bf16, Format::q4_0, Format::q4_1, Format::q5_0,
                               Format::q5_1, Format::q8_0);
  const Index rows = GENERATE(1, 5, 40), out = 37, in = 96;
  const auto e = encode(format, out, in);
  const auto bias = checks::random_tensor<float>({out}, 6);
  const QuantizedLinear layer(format, e.blocks.data(), out, in, bias);
  const graft::DenseLinear dense(e.decoded, bias);
  const auto x = checks::random_tensor<float>({rows, in}, 7);
  graft::Tape tape({.gradients = false});
  CHECK(checks::relative_error(linear(layer, tape.constant(x)).value(),
                               checks::base_output(dense, x)) < 1e-5);
  auto w = graft::Tensor::empty({3, in});
  layer.write_weight(11, w.matrix());
  CHECK(std::equal(w.begin(), w.end(), e.decoded.begin() + 11 * in));
  CHECK(layer.weight_bytes() == static_cast<Index>(e.blocks.size()));
  const auto dy = checks::random_tensor<float>({rows, out}, 8);
  auto a = graft::Tensor::zeros({rows, in}), b = graft::Tensor::zeros({rows, in});
  layer.backward_input(dy.matrix(), a.matrix());
  dense.backward_input(dy.matrix(), b.matrix());
  CHECK(checks::relative_error(a, b) < 1e-5);
}

TEST_CASE(
    "A layer in blocks of 256 values computes what the decoded weight does, in both directions") {
  const Index rows = GENERATE(30, 150), out = 70, in = 768;
  const auto e = encode(Format::tq2_0, out, in);
  const QuantizedLinear layer(Format::tq2_0, e.blocks.data(), out, in);
  const graft::DenseLinear dense(e.decoded);
  const auto x = checks::random_tensor<float>({rows, in}, 7),
             dy = checks::random_tensor<float>({rows, out}, 8);
  auto y = graft::Tensor::empty({rows, out}), expected = graft::Tensor::empty({rows, out});
  layer.forward(x.matrix(), y.matrix());
  dense.forward(x.matrix(), expected.matrix());
  CHECK(checks::relative_error(y, expected) < 1e-5);
  auto a = graft::Tensor::zeros({rows, in}), b = graft::Tensor::zeros({rows, in});
  layer.backward_input(dy.matrix(), a.matrix());
  dense.backward_input(dy.matrix(), b.matrix());
  CHECK(checks::relative_error(a, b) < 1e-5);
}

TEST_CASE("LoRA's term runs inside the product of a quantised layer, both ways") {
  const auto e = encode(Format::q4_1, 24, 64);
  const graft::AnyLinear layer(QuantizedLinear(Format::q4_1, e.blocks.data(), 24, 64));
  const graft::AnyLinear dense(graft::DenseLinear(e.decoded));
  const graft::Parameter a(checks::random_tensor<float>({4, 64}, 1)),
      b(checks::random_tensor<float>({24, 4}, 2)), x(checks::random_tensor<float>({9, 64}, 3));
  const auto weights = checks::random_tensor<float>({9, 24}, 4);
  const auto gradients = [&](const graft::AnyLinear& base) {
    for (const auto& p : {a, b, x}) p.zero_grad();
    graft::Tape tape;
    const auto vx = tape.parameter(x);
    tape.backward(linear_low_rank(base, vx, vx, tape.parameter(a), tape.parameter(b), 0.5F),
                  weights);
    return std::vector<graft::Tensor>{a.grad().clone(), b.grad().clone(), x.grad().clone()};
  };
  const auto found = gradients(layer), expected = gradients(dense);
  for (std::size_t i = 0; i < 3; ++i) CHECK(checks::relative_error(found[i], expected[i]) < 1e-5);
}

TEST_CASE("With input in 8 bits few rows are rounded, more rows and gradients are not") {
  const Index rows = GENERATE(1, 8, 9), out = 70, in = 96;
  const auto e = encode(Format::q4_1, out, in);
  const QuantizedLinear plain(Format::q4_1, e.blocks.data(), out, in,
                              checks::random_tensor<float>({out}, 6));
  const auto layer = plain.with_activations(graft::Activations::int8);
  CHECK(layer.activations() == graft::Activations::int8);
  const auto x = checks::random_tensor<float>({rows, in}, 7);
  const auto h = checks::random_tensor<float>({rows, 3}, 8),
             p = checks::random_tensor<float>({3, out}, 9);
  const graft::LowRankProduct<float> term{h.matrix(), p.matrix()};
  auto exact = graft::Tensor::empty({rows, out}), y = graft::Tensor::empty({rows, out});
  plain.forward(x.matrix(), exact.matrix(), &term);
  layer.forward(x.matrix(), y.matrix(), &term);
  const double error = checks::relative_error(y, exact);
  CHECK(error < 1e-2);
  CHECK((error > 1e-5) == (rows <= 8));
  auto dx = graft::Tensor::empty({rows, in}), dx_exact = graft::Tensor::empty({rows, in});
  plain.backward_input(exact.matrix(), dx_exact.matrix(), nullptr, false);
  layer.backward_input(exact.matrix(), dx.matrix(), nullptr, false);
  CHECK(std::equal(dx.begin(), dx.end(), dx_exact.begin()));
}

TEST_CASE("Rows that are no whole number of blocks and a bias of another size are refused") {
  const auto e = encode(Format::q8_0, 4, 32);
  CHECK_THROWS_AS(QuantizedLinear(Format::q8_0, e.blocks.data(), 4, 33), graft::ValueError);
  CHECK_THROWS_AS(QuantizedLinear(Format::q8_0, e.blocks.data(), 4, 32, graft::Tensor::zeros({5})),
                  graft::ShapeError);
}
