// A linear regression in Eigen whose data change: the old weights stay as they are, LoRA learns the
// difference, and the sum is an Eigen matrix again.
#include <Eigen/Dense>
#include <cstdio>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/interop/eigen.hpp"
#include "graft/optim/adamw.hpp"

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  constexpr int rows = 512, in = 24, out = 8;
  std::srand(3);
  // Samples are rows, as graft reads them; the weight may have either storage order.
  const RowMajor x = RowMajor::Random(rows, in);
  const Eigen::MatrixXf old_weight = Eigen::MatrixXf::Random(out, in);

  // The world moved in two directions.
  const Eigen::MatrixXf change =
      0.2F * Eigen::MatrixXf::Random(out, 2) * Eigen::MatrixXf::Random(2, in);
  const RowMajor y = x * (old_weight + change).transpose() + 0.01F * RowMajor::Random(rows, out);

  //! [eigen]
  // out_by_in: the weight is out × in, y = x Wᵀ. No element is copied.
  const auto frozen = graft::interop::out_by_in(old_weight);
  graft::Adapted layer(frozen, graft::LoRA({.rank = 2, .alpha = 2}, frozen));
  //! [eigen]
  graft::AdamW optimizer(layer.parameters(), {.learning_rate = 1e-2});
  for (int step = 0; step < 600; ++step) {
    graft::Tape tape;
    const auto input = tape.constant(graft::interop::rows(x));
    const auto loss = graft::mse(layer(input), tape.constant(graft::interop::rows(y)));
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
    if (step % 150 == 0)
      std::printf("step %3d  loss %.2e\n", step, static_cast<double>(loss.item()));
  }

  //! [back]
  const auto merged = layer.merge();
  const Eigen::MatrixXf new_weight = graft::interop::eigen(merged.weight());
  //! [back]
  // All in x out numbers at once, for comparison.
  const Eigen::MatrixXf exact = x.colPivHouseholderQr().solve(y).transpose();
  const auto error = [&](const Eigen::MatrixXf& w) {
    return static_cast<double>((x * w.transpose() - y).norm() / y.norm());
  };
  std::printf(
      "residual: old weight %.4f, with LoRA of rank 2 %.4f, least squares of all %d numbers %.4f\n",
      error(old_weight), error(new_weight), in * out, error(exact));
  return error(new_weight) < 1.2 * error(exact) ? 0 : 1;
}
