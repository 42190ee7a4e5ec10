// What a user compiles who wraps one layer with LoRA, trains it and merges: the probe of
// cmake/compile_time.py.
#include <vector>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/layers/dense_linear.hpp"
#include "graft/optim/adamw.hpp"

int main() {
  std::vector<float> weight(64 * 32, 0.5f);
  std::vector<float> inputs(16 * 32, 0.25f);
  std::vector<float> targets(16 * 64, 1.0f);
  const graft::DenseLinear frozen(graft::MatrixView<const float>(weight.data(), 64, 32));
  graft::Adapted layer(frozen, graft::LoRA({.rank = 8, .alpha = 16}, frozen));
  graft::AdamW optimizer(layer.parameters(), {.learning_rate = 1e-3});
  for (int step = 0; step < 10; ++step) {
    graft::Tape tape;
    const auto x = tape.constant(graft::Tensor::borrow(inputs.data(), {16, 32}));
    const auto y = tape.constant(graft::Tensor::borrow(targets.data(), {16, 64}));
    auto loss = graft::mse(layer(x), y);
    tape.backward(loss);
    optimizer.step();
  }
  return layer.merge().weight()(0, 0) > 0.0f ? 0 : 1;
}
