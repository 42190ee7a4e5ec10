// A layer over a view of xtensor: the slice of a larger array is the frozen weight, without a copy.
//
// The array holds the weights of three heads one after the other; the middle one is adapted to
// another one's results.
#include <cstdio>
#include <xtensor/xnorm.hpp>
#include <xtensor/xrandom.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/interop/xtensor.hpp"
#include "graft/optim/adamw.hpp"

int main() {
  xt::random::seed(5);
  const int in = 24, head = 8;
  const xt::xtensor<float, 2> heads = 0.2F * xt::random::randn<float>({3 * head, in});
  const auto middle = xt::view(heads, xt::range(head, 2 * head), xt::all());
  const auto last = xt::view(heads, xt::range(2 * head, 3 * head), xt::all());
  const xt::xtensor<float, 2> x = xt::random::randn<float>({64, in});

  const auto frozen = graft::interop::out_by_in(middle), wanted = graft::interop::out_by_in(last);
  std::printf("no copy: %s\n", frozen.weight().data() == &heads(head, 0) ? "yes" : "no");
  // Two heads differ by a matrix of full rank, which is 8 here.
  graft::Adapted layer(frozen, graft::LoRA({.rank = 8, .alpha = 8}, frozen));
  graft::AdamW optimizer(layer.parameters(), {.learning_rate = 2e-2, .weight_decay = 0});
  for (int step = 0; step < 500; ++step) {
    graft::Tape tape;
    const auto input = tape.constant(graft::interop::tensor(x));
    tape.backward(graft::mse(layer(input), graft::linear(wanted, input)));
    optimizer.step();
    // A gradient is read in one's own type before it is dropped.
    if (step == 0) {
      const xt::xtensor<float, 2> g = graft::interop::xtensor(layer.adapter().b().grad());
      std::printf("first gradient of B: %zu x %zu, norm %.3f\n", g.shape(0), g.shape(1),
                  static_cast<double>(xt::norm_l2(g)()));
    }
    optimizer.zero_grad();
  }
  const auto merged_layer = layer.merge();
  const xt::xtensor<float, 2> merged = graft::interop::xtensor(merged_layer.dense_weight());
  const double before = static_cast<double>(xt::norm_l2(middle - last)()),
               after = static_cast<double>(xt::norm_l2(merged - last)());
  std::printf("distance of the weights: %.3f before, %.2e after\n", before, after);
  return after < 0.05 * before ? 0 : 1;
}
