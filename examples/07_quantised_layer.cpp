// LoRA on a weight of 4 bits: the blocks are decoded inside the product and stay as they are.
//
// Quantising costs accuracy; LoRA beside the quantised weight learns a part of it back.
#include <cstddef>
#include <cstdio>
#include <vector>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/layers/dense_linear.hpp"
#include "graft/layers/quantized_linear.hpp"
#include "graft/optim/adamw.hpp"

int main() {
  constexpr graft::Index in = 128, out = 64, rows = 128;
  graft::TorchGenerator rng(4);
  const auto normal = [&](const graft::Shape& shape) {
    auto t = graft::Tensor::empty(shape);
    rng.normal(t.data(), t.size());
    return t;
  };

  const graft::Tensor weight = normal({out, in});
  const graft::DenseLinear dense(weight);
  // Rows of blocks, as in a GGUF file; 32 values and their scale are 18 bytes.
  const auto format = graft::quant::Format::q4_0;
  std::vector<std::byte> blocks(
      static_cast<std::size_t>(graft::quant::row_bytes(format, in) * out));
  graft::quant::encode(format, weight.data(), weight.size(), blocks.data());
  const graft::QuantizedLinear frozen(format, blocks.data(), out, in);
  const auto before_training = blocks;

  graft::Adapted layer(frozen, graft::LoRA({.rank = 16, .alpha = 16}, frozen));
  graft::AdamW optimizer(layer.parameters(), {.learning_rate = 5e-3, .weight_decay = 0});
  double first = 0, last = 0;
  for (int step = 0; step < 400; ++step) {
    graft::Tape tape;
    const auto x = tape.constant(normal({rows, in}));
    const auto loss = graft::mse(layer(x), graft::linear(dense, x));
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
    last = static_cast<double>(loss.item());
    if (step == 0) first = last;
  }
  std::printf("weight: %td bytes in 4 bits, %td in f32\n", frozen.weight_bytes(),
              weight.size() * static_cast<graft::Index>(sizeof(float)));
  std::printf("error of the outputs: %.4f quantised, %.4f with LoRA\n", first, last);

  // Merging gives a dense layer: the sum does not fit into the 4 bits.
  const graft::DenseLinear merged = layer.merge();
  graft::Tape tape({.gradients = false});
  const auto x = tape.constant(normal({rows, in}));
  const double merged_error =
      static_cast<double>(graft::mse(graft::linear(merged, x), graft::linear(dense, x)).item());
  std::printf("merged: %.4f\n", merged_error);
  return last < 0.8 * first && merged_error < 0.8 * first && blocks == before_training ? 0 : 1;
}
