// An operation of one's own for the tape: a struct with `forward` and `backward`, checked by one
// call, and a look at gradients on their way back.
//
// The operation is the pinball loss, whose minimum is a quantile: the model learns the value that
// 90 % of the data stay below, not their mean.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "graft/autograd/custom_op.hpp"
#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/autograd/ops/shape.hpp"
#include "graft/base/rng.hpp"
#include "graft/optim/adamw.hpp"

// mean over i of q d if d > 0, else (q - 1) d, with d = target - prediction.
template <class T>
struct Pinball {
  using Tensor = graft::BasicTensor<T>;
  T quantile;
  Tensor slope = {};  // what backward needs

  Tensor forward(const Tensor& prediction, const Tensor& target) {
    slope = Tensor::empty(prediction.shape());
    const T share = T{1} / static_cast<T>(prediction.size());
    T sum{0};
    for (graft::Index i = 0; i < prediction.size(); ++i) {
      const T d = target[i] - prediction[i];
      const T q = d > 0 ? quantile : quantile - 1;
      sum += share * q * d;
      slope[i] = -share * q;
    }
    return Tensor::scalar(sum);
  }
  // One gradient for each input; an empty tensor where there is none.
  std::array<Tensor, 2> backward(const Tensor& dy) const {
    auto dx = Tensor::empty(slope.shape());
    for (graft::Index i = 0; i < dx.size(); ++i) dx[i] = dy[0] * slope[i];
    return {dx, Tensor{}};
  }
};

int main() {
  graft::TorchGenerator rng(2);
  const auto normal = [&]<class T>(T, const graft::Shape& shape) {
    auto t = graft::BasicTensor<T>::empty(shape);
    rng.normal(t.data(), t.size());
    return t;
  };

  const graft::BasicParameter<double> point(normal(0.0, {6, 2}));
  const auto fixed = normal(0.0, {6, 2});
  const auto check = graft::gradient_check(
      [&](auto& tape) {
        return custom_op(Pinball<double>{0.9}, tape.parameter(point), tape.constant(fixed));
      },
      {point});
  std::printf("gradient check: %.1e\n", check.relative_error);

  // y = 2 x + noise; the line below which 90 % of the points lie is 2 x + 1.2816.
  const graft::Parameter slope(graft::Tensor::zeros({1, 1})), shift(graft::Tensor::zeros({1}));
  graft::AdamW optimizer({slope, shift}, {.learning_rate = 2e-2, .weight_decay = 0});
  double most = 0;
  for (int step = 0; step < 600; ++step) {
    const auto x = normal(0.0F, {512, 1});
    auto y = normal(0.0F, {512, 1});
    for (graft::Index i = 0; i < y.size(); ++i) y[i] += 2 * x[i];
    graft::Tape tape;
    auto prediction =
        graft::add(graft::matmul(tape.constant(x), tape.parameter(slope)), tape.parameter(shift));
    prediction = graft::observe_gradient(prediction, [&](const graft::Tensor& g) {
      for (const float v : g) most = std::max(most, std::abs(static_cast<double>(v)));
    });
    tape.backward(custom_op(Pinball<float>{0.9F}, prediction, tape.constant(y)));
    optimizer.step();
    optimizer.zero_grad();
  }
  std::printf("learned %.2f x + %.2f, expected 2 x + 1.28; largest gradient seen %.5f\n",
              static_cast<double>(slope.value()[0]), static_cast<double>(shift.value()[0]), most);
  const bool good =
      std::abs(slope.value()[0] - 2) < 0.15F && std::abs(shift.value()[0] - 1.2816F) < 0.15F;
  return good && check.relative_error < 1e-6 ? 0 : 1;
}
