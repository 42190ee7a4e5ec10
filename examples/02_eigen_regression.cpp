// LoRA on an Eigen regression: wrap, attach, train, merge, and the result as an Eigen matrix.
//
// A linear model fits y = x Wᵀ. Then the world changes by a matrix of rank 2, which LoRA of that
// rank finds from 64 measurements.
#include <Eigen/Core>
#include <cstdio>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/interop/eigen.hpp"
#include "graft/optim/adamw.hpp"

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  std::srand(3);  // Eigen's Random
  const Eigen::Index in = 40, out = 30, rows = 64;
  const Eigen::MatrixXf w = Eigen::MatrixXf::Random(out, in);  // column-major, Eigen's default
  const Eigen::MatrixXf changed =
      w + 0.3F * Eigen::MatrixXf::Random(out, 2) * Eigen::MatrixXf::Random(2, in);
  const RowMajor x = RowMajor::Random(rows, in);  // rows of input lie one after the other
  const RowMajor y = x * changed.transpose();

  // No copy: the layer reads w where it is. in_by_out is for weights that lie the other way round.
  const auto frozen = graft::interop::out_by_in(w);
  graft::Adapted layer(frozen, graft::LoRA({.rank = 2, .alpha = 2}, frozen));
  graft::AdamW optimizer(layer.parameters(), {.learning_rate = 2e-2, .weight_decay = 0});
  for (int step = 0; step < 800; ++step) {
    graft::Tape tape;
    const auto loss = graft::mse(layer(tape.constant(graft::interop::rows(x))),
                                 tape.constant(graft::interop::rows(y)));
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
    if (step % 200 == 0)
      std::printf("step %3d  loss %.2e\n", step, static_cast<double>(loss.item()));
  }
  const auto merged_layer = layer.merge();
  const Eigen::MatrixXf merged = graft::interop::eigen(merged_layer.weight());

  const RowMajor unseen = RowMajor::Random(200, in);
  const auto error = [&](const Eigen::MatrixXf& m) {
    return static_cast<double>((unseen * (m - changed).transpose()).norm() /
                               (unseen * changed.transpose()).norm());
  };
  std::printf("relative error on unseen rows: %.3f before, %.3f after\n", error(w), error(merged));
  return error(merged) < 0.01 * error(w) ? 0 : 1;
}
