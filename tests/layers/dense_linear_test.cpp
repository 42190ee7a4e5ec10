#include "graft/layers/dense_linear.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::DenseLinear;
using graft::Index;
using graft::MatrixView;
using graft::Tensor;

TEST_CASE("A dense layer is x times the transposed weight plus the bias") {
  const Index rows = GENERATE(1, 3, 17, 64), in = 19, out = 23;
  const auto w = checks::random_tensor<double>({out, in}, 1),
             b = checks::random_tensor<double>({out}, 2),
             x = checks::random_tensor<double>({rows, in}, 3);
  auto expected = graft::BasicTensor<double>::empty({rows, out});
  for (Index i = 0; i < rows; ++i)
    for (Index o = 0; o < out; ++o) {
      expected(i, o) = b[o];
      for (Index k = 0; k < in; ++k) expected(i, o) += x(i, k) * w(o, k);
    }
  const graft::BasicDenseLinear<double> exact(w, b);
  CHECK(checks::relative_error(checks::base_output(exact, x), expected) < 1e-14);
  DenseLinear layer(w.cast<float>(), b.cast<float>());
  const auto y = checks::base_output(layer, x.cast<float>());
  CHECK(checks::relative_error(y, expected.cast<float>()) < 1e-5);
  layer.pack();
  CHECK(checks::relative_error(checks::base_output(layer, x.cast<float>()), y) < 1e-6);
}

TEST_CASE("A dense layer on a strided matrix borrows it and reads no padding") {
  const Index in = 5, out = 4, stride = 9;
  auto store = checks::random_tensor<float>({out, stride}, 1);
  const DenseLinear borrowed(MatrixView<const float>(store.data(), out, in, stride));
  auto compact = Tensor::empty({out, in});
  for (Index o = 0; o < out; ++o)
    std::copy_n(store.data() + o * stride, in, compact.data() + o * in);
  const DenseLinear own(compact);
  const auto x = checks::random_tensor<float>({6, in}, 2);
  CHECK(checks::relative_error(checks::base_output(borrowed, x), checks::base_output(own, x)) <
        1e-6);
  CHECK(checks::relative_error(borrowed.dense_weight(), compact) == 0);
  store(1, 2) += 1;
  CHECK(borrowed.weight()(1, 2) == store(1, 2));
  CHECK_FALSE(static_cast<bool>(borrowed.bias()));
}

TEST_CASE("The gradient of a dense layer's input is dy times the weight, written or added") {
  const auto layer = checks::random_layer<float>(7, 5, 1);
  const auto dy = checks::random_tensor<float>({3, 7}, 2);
  auto dx = checks::random_tensor<float>({3, 5}, 3);
  const auto before = dx.clone();
  layer.backward_input(dy.matrix(), dx.matrix(), nullptr, true);
  auto alone = Tensor::empty({3, 5});
  std::fill(alone.begin(), alone.end(), 1e9F);
  layer.backward_input(dy.matrix(), alone.matrix(), nullptr, false);
  for (Index i = 0; i < 15; ++i) CHECK(dx[i] - before[i] == Approx(alone[i]).margin(1e-5));
  double sum = 0;
  for (Index o = 0; o < 7; ++o)
    sum += static_cast<double>(dy(1, o)) * static_cast<double>(layer.weight()(o, 4));
  CHECK(alone(1, 4) == Approx(sum).margin(1e-5));
}

TEST_CASE("A weight that is no matrix and a bias of another size are refused") {
  CHECK_THROWS_AS(DenseLinear(Tensor::zeros({2, 3, 4})), graft::ShapeError);
  CHECK_THROWS_WITH(DenseLinear(Tensor::zeros({2, 3}), Tensor::zeros({3})),
                    Catch::Contains("bias") && Catch::Contains("[2]"));
}
