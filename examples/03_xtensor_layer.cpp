// A layer whose weights are a view into an xtensor container, with SSF on it: a trained factor and
// a trained shift for each output.
#include <cstdio>
#include <xtensor/xrandom.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/elementwise/ssf.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/interop/xtensor.hpp"
#include "graft/optim/adamw.hpp"

int main() {
  constexpr int rows = 128, in = 16, out = 6;
  xt::random::seed(5);
  // The weights of two layers in one container, as some files have them.
  const xt::xtensor<float, 2> stacked = xt::random::randn<float>({2 * out, in});
  const auto second = xt::view(stacked, xt::range(out, 2 * out), xt::all());
  const auto frozen = graft::interop::out_by_in(second);
  std::printf("weights at %p, the layer reads at %p\n", static_cast<const void*>(&stacked(out, 0)),
              static_cast<const void*>(frozen.weight().data()));

  // Targets: every output of the frozen layer, louder or quieter.
  const xt::xtensor<float, 1> factors{0.5F, 2.0F, 1.0F, -1.0F, 1.5F, 0.0F};
  const xt::xtensor<float, 2> x = xt::random::randn<float>({rows, in});

  graft::Adapted layer(frozen, graft::SSF({.exact_identity = true}, frozen));
  graft::AdamW optimizer(layer.parameters(), {.learning_rate = 2e-2, .weight_decay = 0});
  const auto louder = graft::interop::tensor(factors);
  double loss = 0;
  for (int step = 0; step < 400; ++step) {
    graft::Tape tape;
    const auto input = tape.constant(graft::interop::tensor(x));
    const auto target = graft::mul(graft::linear(frozen, input), tape.constant(louder));
    const auto error = graft::mse(layer(input), target);
    tape.backward(error);
    optimizer.step();
    optimizer.zero_grad();
    loss = static_cast<double>(error.item());
    if (step % 100 == 0) std::printf("step %3d  loss %.2e\n", step, loss);
  }

  const auto learnt = graft::interop::xtensor(layer.parameters().at(0).value());
  for (std::size_t i = 0; i < factors.size(); ++i)
    std::printf("factor %.2f, learnt %.3f\n", static_cast<double>(factors(i)),
                static_cast<double>(learnt.flat(i)));
  return loss < 1e-4 ? 0 : 1;
}
