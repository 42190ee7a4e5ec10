// One frozen matrix, LoRA on it, a training loop of one's own, and the merged matrix back.
//
// The frozen weight W is given; the data come from W + ΔW with ΔW of rank 2. LoRA of rank 4 learns
// ΔW from inputs and outputs alone.
#include <cmath>
#include <cstdio>
#include <vector>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/base/rng.hpp"
#include "graft/layers/dense_linear.hpp"
#include "graft/optim/adamw.hpp"

int main() {
  constexpr graft::Index in = 48, out = 32, rows = 64, hidden_rank = 2;
  graft::TorchGenerator rng(7);
  const auto normal = [&](graft::Shape shape) {
    auto t = graft::Tensor::empty(shape);
    rng.normal(t.data(), t.size());
    return t;
  };

  // What somebody already has: weights [out, in], row after row, in memory of their own.
  const graft::Tensor weight = normal({out, in});
  //! [wrap]
  const graft::DenseLinear frozen(graft::MatrixView<const float>(weight.data(), out, in));
  //! [wrap]

  // The task: targets of the weight that LoRA has to find.
  const graft::Tensor u = normal({out, hidden_rank}), v = normal({hidden_rank, in});
  std::vector<float> wanted(weight.begin(), weight.end());
  for (graft::Index o = 0; o < out; ++o)
    for (graft::Index i = 0; i < in; ++i)
      for (graft::Index k = 0; k < hidden_rank; ++k)
        wanted[static_cast<std::size_t>(o * in + i)] +=
            0.1f * u[static_cast<std::size_t>(o * hidden_rank + k)] *
            v[static_cast<std::size_t>(k * in + i)];
  const graft::DenseLinear teacher(graft::MatrixView<const float>(wanted.data(), out, in));

  //! [adapt]
  graft::Adapted layer(frozen, graft::LoRA({.rank = 4, .alpha = 4}, frozen));
  //! [adapt]
  graft::AdamW optimizer(layer.parameters(), {.learning_rate = 2e-2});
  float first = 0, last = 0;
  for (int step = 0; step < 400; ++step) {
    //! [step]
    graft::Tape tape;
    const auto x = tape.constant(normal({rows, in}));
    const auto target = tape.constant(graft::linear(teacher, x).value());
    const auto loss = graft::mse(layer(x), target);
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
    //! [step]
    last = loss.value()[0];
    if (step == 0) first = last;
    if (step % 100 == 0) std::printf("step %3d  loss %.2e\n", step, static_cast<double>(last));
  }

  //! [merge]
  const graft::DenseLinear merged = layer.merge();
  //! [merge]
  float error = 0;
  for (graft::Index o = 0; o < out; ++o)
    for (graft::Index i = 0; i < in; ++i)
      error = std::max(
          error, std::abs(merged.weight()(o, i) - wanted[static_cast<std::size_t>(o * in + i)]));
  std::printf("loss %.2e -> %.2e, largest difference of the merged weight %.1e\n",
              static_cast<double>(first), static_cast<double>(last), static_cast<double>(error));
  return last < 1e-5f * first && error < 5e-3f ? 0 : 1;
}
