#include "graft/layers/int8_linear.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/layers/any_linear.hpp"
#include "graft/layers/dense_linear.hpp"

using checks::random_tensor;
using graft::Index;
using graft::Tensor;
namespace quant = graft::quant;

namespace {

double relative_error(const Tensor& a, const Tensor& b) {
  double error = 0, size = 0;
  for (Index i = 0; i < a.size(); ++i) {
    error += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(error / size);
}
struct Layers {
  Tensor w = random_tensor<float>({70, 130}, 1), bias = random_tensor<float>({70}, 2);
  quant::Int8Matrix codes =
      quant::encode_int8({w.data(), static_cast<std::size_t>(w.size())}, 70, 130);
  graft::DenseLinear decoded{Tensor::from(quant::decode_int8(codes), {70, 130}), bias};
};
Tensor output(const auto& layer, const Tensor& x) {
  auto y = Tensor::empty({x.rows(), layer.out_features()});
  layer.forward(x.matrix(), y.matrix());
  return y;
}

}  // namespace

TEST_CASE("Products of 8-bit rows are near the float ones, columns with outliers exact") {
  const Layers l;
  auto x = random_tensor<float>({6, 130}, 3);
  const auto exact = output(l.decoded, x);
  const auto all = [&](float threshold, bool weight_only = false) {
    return output(
        graft::Int8Linear(l.codes, l.bias, {.threshold = threshold, .weight_only = weight_only}),
        x);
  };
  CHECK(relative_error(all(0, true), exact) < 1e-6);
  CHECK(relative_error(all(0), exact) < 0.01);
  CHECK(relative_error(all(0), exact) > 1e-5);
  // All columns are outliers: the float product with the decoded weight.
  CHECK(relative_error(all(1e-6F), exact) < 1e-6);
  // One large column spoils the codes of its row unless it is taken out.
  for (Index m = 0; m < 6; ++m) x(m, 17) = 60.0F;
  const auto large = output(l.decoded, x);
  CHECK(relative_error(all(6), large) < 0.2 * relative_error(all(0), large));
}

TEST_CASE("Gradients of an 8-bit layer go through the decoded weight") {
  const Layers l;
  const graft::Int8Linear layer(l.codes, l.bias);
  const auto dy = random_tensor<float>({5, 70}, 4), start = random_tensor<float>({5, 130}, 5);
  for (const bool accumulate : {false, true}) {
    auto dx = start.clone(), expected = start.clone();
    layer.backward_input(dy.matrix(), dx.matrix(), nullptr, accumulate);
    l.decoded.backward_input(dy.matrix(), expected.matrix(), nullptr, accumulate);
    CHECK(relative_error(dx, expected) < 1e-6);
  }
  CHECK(graft::FusesLowRank<graft::Int8Linear>);
  CHECK_THROWS_WITH(graft::Int8Linear(l.codes, Tensor::zeros({3})), Catch::Contains("bias"));
  CHECK(layer.weight_bytes() == 70 * 130 + 70 * 4);
}

TEST_CASE("A row of activations without other entries than outliers has the scale 0") {
  auto x = Tensor::zeros({2, 3});
  x(0, 1) = 7;
  x(1, 0) = 0.5F;
  const auto rows = graft::encode_int8_rows(x.matrix(), 6);
  CHECK(rows.outliers == std::vector<Index>{1});
  CHECK(rows.scales == std::vector<float>{0, 0.5F / 127});
  CHECK(rows.codes == std::vector<std::int8_t>{0, 0, 0, 127, 0, 0});
}
