#include "graft/adapters/memory/s2a.hpp"

#include "adapters/method_checks.hpp"
#include "graft/autograd/ops/norm.hpp"

using graft::BasicTensor;
using graft::Index;
using A = graft::kernels::Activation;

TEST_CASE("Codes of a tensor err by half a step at most and take half a byte an element") {
  const auto g = checks::random_tensor<double>({9, 37}, 1);
  for (const bool half : {true, false})
    for (const Index bits : {1, 2, 4, 8}) {
      CAPTURE(half, bits);
      const graft::DerivativeCodes<double> codes(
          g, {.bits = bits, .group_size = 64, .half_ranges = half});
      REQUIRE(codes.groups() == 6);
      CHECK(codes.bytes() == (333 * bits + 7) / 8 + 6 * (half ? 4 : 8));
      const auto decoded = codes.decode();
      const double steps = static_cast<double>((1 << bits) - 1);
      for (Index i = 0; i < g.size(); ++i) {
        const Index k = i / 64;
        const double range = codes.high(k) - codes.low(k);
        // Ends in 16 bits lose up to 2⁻¹¹ of themselves.
        const double ends =
            half ? 0.002 * std::max(std::abs(codes.high(k)), std::abs(codes.low(k))) : 1e-6;
        CHECK(std::abs(decoded[i] - g[i]) <= range / steps / 2 + ends);
      }
    }
  const graft::DerivativeCodes<float> flat(graft::Tensor::full({10}, 0.25F), {});
  for (const float v : flat.codes()) CHECK(v == 0);
  const auto values = flat.decode();
  CHECK(values[9] == 0.25F);
  CHECK_THROWS_WITH(graft::DerivativeCodes<double>(g, {.bits = 3}), Catch::Contains("3 bits"));
}

TEST_CASE("Functions with codes compute what they compute without, and nearly its gradient") {
  const auto input = checks::random_tensor<double>({6, 50}, 2, 2),
             dy = checks::random_tensor<double>({6, 50}, 3);
  const auto weight = checks::random_tensor<double>({50}, 4),
             bias = checks::random_tensor<double>({50}, 5);
  const auto compare = [&](auto&& coded, auto&& exact) {
    BasicTensor<double> y[2], dx[2];
    for (const int which : {0, 1}) {
      graft::BasicTape<double> tape;
      const auto x = tape.leaf(input);
      const graft::BasicVar<double> out = which == 0 ? coded(x) : exact(x);
      y[which] = out.value();
      tape.backward(out, dy);
      dx[which] = x.grad();
    }
    CHECK(checks::relative_error(y[0], y[1]) == 0);
    const double error = checks::relative_error(dx[0], dx[1]);
    CHECK(error < 0.3);
    CHECK(error > 1e-6);
  };
  const graft::DerivativeCodeOptions options{.group_size = 64};
  for (const A kind : {A::gelu, A::silu})
    compare([&](const auto& x) { return coded_activation(kind, x, options); },
            [&](const auto& x) { return activation(kind, x); });
  compare([&](const auto& x) { return coded_softmax(x, options); },
          [&](const auto& x) { return softmax(x); });
  compare([&](const auto& x) { return coded_layer_norm(x, weight, bias, 1e-5, options); },
          [&](const auto& x) {
            return layer_norm(x, x.tape().constant(weight), x.tape().constant(bias), 1e-5);
          });
  // One bit does for ReLU: 0 and 1 are the ends of the range.
  for (const Index bits : {1, 4}) {
    graft::BasicTape<double> tape;
    const auto x = tape.leaf(input);
    tape.backward(coded_activation(A::relu, x, {.bits = bits, .group_size = 64}), dy);
    for (Index i = 0; i < input.size(); ++i) CHECK(x.grad()[i] == (input[i] > 0 ? dy[i] : 0));
  }
}

TEST_CASE("S2A's side module starts as the identity and has the gradients of its function") {
  const graft::S2AConfig config{.adapter_dim = 3, .window = 3};
  graft::StandaloneInit<double> init(1);
  const graft::BasicS2ASide<double> module(config, 6, init.context());
  const graft::BasicParameter<double> x(checks::random_tensor<double>({2, 7, 6}, 2)),
      h(checks::random_tensor<double>({2, 7, 6}, 3));
  {
    graft::BasicTape<double> tape;
    const auto y = module.apply(tape.parameter(x), tape.parameter(h)).value();
    CHECK(checks::relative_error(y, h.value()) == 0);
  }
  CHECK(graft::trainable_elements(module.tensors()) == 2 * 6 * 3 + 3 + 6);
  checks::randomize(module);
  std::vector<graft::BasicParameter<double>> parameters{x, h};
  for (const auto& t : module.tensors()) parameters.push_back(t.parameter);
  const auto weights = checks::random_tensor<double>({2, 7, 6}, 4);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              return sum(
                  mul(module.apply(tape.parameter(x), tape.parameter(h)), tape.constant(weights)));
            },
            parameters)
            .relative_error < 1e-6);
  CHECK_THROWS_WITH(graft::BasicS2ASide<double>({.window = 0}, 6, init.context()),
                    Catch::Contains("window 0"));
  CHECK_THROWS_WITH(graft::BasicS2ASide<double>({.range_dtype = "f8"}, 6, init.context()),
                    Catch::Contains("'f8'"));
}
