#include "graft/adapters/quantized/l4q.hpp"

#include "adapters/method_checks.hpp"

using graft::Index;
using graft::L4Q;
using graft::L4QConfig;

TEST_CASE("L4Q starts as plain quantisation of the weight and merges into integers") {
  const L4QConfig config{.rank = 2, .alpha = 3, .bits = 3, .group_size = 4};
  const auto layer = checks::random_layer<float>(10, 12, 1);
  const L4Q method(config, layer);
  const auto w = layer.dense_weight();
  const auto merged = merge_linear(layer, method).dense_weight();
  const auto codes = method.codes(w);
  const auto scale = method.tensors()[2].parameter.value();
  for (Index i = 0; i < w.size(); ++i) {
    // The step of the group reaches from its least to its largest weight.
    CHECK(std::abs(merged[i] - w[i]) <= 0.5F * scale[i / 4] * 1.001F);
    CHECK(codes[static_cast<std::size_t>(i)] >= -4);
    CHECK(codes[static_cast<std::size_t>(i)] <= 3);
  }
  CHECK(checks::trained<L4Q>(config) == 2 * (10 + 12) + 2 * 10 * 3);
  CHECK(checks::merge_error<L4Q>(config) < 1e-5);

  const auto tensors = method.tensors();
  tensors[0].parameter.assign(checks::random_tensor<float>({2, 12}, 5, 0.5));
  tensors[1].parameter.assign(checks::random_tensor<float>({10, 2}, 6, 0.5));
  tensors[3].parameter.assign(checks::random_tensor<float>({10, 3}, 7, 0.1));
  const auto moved = merge_linear(layer, method).dense_weight();
  const auto after = method.codes(w);
  for (Index i = 0; i < w.size(); ++i)
    CHECK(moved[i] == Approx(scale[i / 4] * static_cast<float>(after[static_cast<std::size_t>(i)]) +
                             tensors[3].parameter.value()[i / 4])
                          .margin(1e-5));
}

TEST_CASE("L4Q gives the factors no gradient of weights outside of the range") {
  const auto layer = checks::random_layer<double>(6, 8, 2);
  const graft::BasicL4Q<double> method({.rank = 2, .alpha = 4, .bits = 2, .group_size = 4}, layer);
  const auto tensors = method.tensors();
  const auto a = tensors[0].parameter, b = tensors[1].parameter, scale = tensors[2].parameter;
  b.assign(checks::random_tensor<double>({6, 2}, 3, 0.5));
  for (double& s : scale.value()) s *= 0.4;
  const auto x = checks::random_tensor<double>({5, 8}, 4),
             dy = checks::random_tensor<double>({5, 6}, 5);
  graft::BasicTape<double> tape;
  const auto y = method.apply(layer, tape.constant(x));
  tape.backward(y, dy);
  // dA = s Bᵀ (m ⊙ dyᵀ x)
  const auto w = layer.dense_weight();
  auto expected = graft::BasicTensor<double>::zeros({2, 8});
  int outside = 0;
  for (Index o = 0; o < 6; ++o)
    for (Index i = 0; i < 8; ++i) {
      double adapted = w(o, i), g = 0;
      for (Index k = 0; k < 2; ++k) adapted += 2 * b.value()(o, k) * a.value()(k, i);
      const double v = adapted / scale.value()(o, i / 4);
      if (v < -2 || v > 1) {
        ++outside;
        continue;
      }
      for (Index m = 0; m < 5; ++m) g += dy(m, o) * x(m, i);
      for (Index k = 0; k < 2; ++k) expected(k, i) += 2 * b.value()(o, k) * g;
    }
  CHECK(outside > 5);
  CHECK(checks::relative_error(a.grad(), expected) < 1e-10);
}

TEST_CASE("L4Q refuses groups that do not divide the inputs and odd numbers of bits") {
  const auto layer = checks::random_layer<float>(4, 10, 1);
  CHECK_THROWS_WITH(L4Q({.group_size = 4}, layer), Catch::Contains("group_size 4 for 10 inputs"));
  CHECK_THROWS_WITH(L4Q({.bits = 1, .group_size = 5}, layer), Catch::Contains("1 bits"));
  CHECK_THROWS_WITH(L4Q({.rank = 0, .group_size = 5}, layer), Catch::Contains("r 0"));
}
