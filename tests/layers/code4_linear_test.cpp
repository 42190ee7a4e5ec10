#include "graft/layers/code4_linear.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/layers/any_linear.hpp"
#include "graft/layers/dense_linear.hpp"

using checks::random_tensor;
using graft::Index;
using graft::Tensor;
namespace quant = graft::quant;

namespace {

double distance(const Tensor& a, const Tensor& b) {
  double error = 0;
  for (Index i = 0; i < a.size(); ++i)
    error = std::max(error, std::abs(static_cast<double>(a[i] - b[i])));
  return error;
}

}  // namespace

TEST_CASE("A layer in 4 bits computes what a dense layer with its decoded weight computes") {
  const Index out = 37, in = 300;  // rows that no block ends with
  const auto w = random_tensor<float>({out, in}, 1), bias = random_tensor<float>({out}, 2);
  for (const bool nested : {false, true}) {
    auto codes =
        quant::encode_4bit(std::span<const float>(w.data(), static_cast<std::size_t>(w.size())),
                           {.double_quantised = nested, .scale_group = 32});
    const Tensor decoded = Tensor::from(quant::decode_4bit(codes), {out, in});
    const graft::Code4Linear layer(codes, out, in, bias);
    const graft::DenseLinear dense(decoded, bias);
    CHECK(distance(graft::weight_of(layer), decoded) == 0);
    const auto h = random_tensor<float>({9, 3}, 5), p = random_tensor<float>({3, out}, 6);
    const graft::LowRankProduct<float> term{h.matrix(), p.matrix()};
    const auto x = random_tensor<float>({9, in}, 3), dy = random_tensor<float>({9, out}, 4);
    auto y = Tensor::empty({9, out}), expected = Tensor::empty({9, out});
    layer.forward(x.matrix(), y.matrix(), &term);
    dense.forward(x.matrix(), expected.matrix(), &term);
    CHECK(distance(y, expected) < 1e-4);
    auto dx = Tensor::empty({9, in}), dx_expected = Tensor::empty({9, in});
    layer.backward_input(dy.matrix(), dx.matrix(), nullptr, false);
    dense.backward_input(dy.matrix(), dx_expected.matrix(), nullptr, false);
    CHECK(distance(dx, dx_expected) < 1e-4);
    // 4 bits and the scales: 32 bits for 64 values, or 8 and 32 for 32 scales.
    CHECK(static_cast<double>(layer.weight_bytes()) <
          (nested ? 0.52 : 0.57) * static_cast<double>(out * in));
  }
}

TEST_CASE("A layer in 4 bits refuses sizes that do not fit") {
  const std::vector<float> w(12, 1.0F);
  const auto codes = quant::encode_4bit(w, {.block = 4});
  CHECK_THROWS_WITH(graft::Code4Linear(codes, 4, 4), Catch::Contains("12 codes for [4, 4]"));
  CHECK_THROWS_WITH(graft::Code4Linear(codes, 3, 4, Tensor::zeros({4})), Catch::Contains("bias"));
}
