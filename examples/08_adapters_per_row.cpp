// Several named adapters on one network of one's own, chosen for each row of a batch.
//
// Two adapters learn two tasks over the same frozen layers; then one batch mixes the tasks and rows
// without an adapter.
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/layers/forward_context.hpp"
#include "graft/optim/adamw.hpp"

namespace {

using graft::Index;

graft::Tensor normal(graft::TorchGenerator& rng, const graft::Shape& shape, double scale = 1) {
  auto t = graft::Tensor::empty(shape);
  rng.normal(t.data(), t.size(), 0, scale);
  return t;
}

// A site is a layer with a name and a place for adapters. Sites keep their addresses.
struct Network {
  graft::LinearSite hidden, out;
  graft::SiteTable sites;
  explicit Network(graft::TorchGenerator& rng)
      : hidden("hidden", graft::DenseLinear(normal(rng, {32, 8}, 0.3))),
        out("out", graft::DenseLinear(normal(rng, {1, 32}, 0.2))) {
    sites.linear = {&hidden, &out};
  }
  Network(const Network&) = delete;
  graft::Var operator()(const graft::Var& x) const { return out(graft::tanh(hidden(x))); }
};

float task(const std::string& name, const float* x) {
  return name == "step" ? std::tanh(2 * (x[0] - x[1])) : std::sin(x[2]);
}

}  // namespace

int main() {
  graft::TorchGenerator rng(9);
  Network network(rng);
  graft::MethodRegistry<float> registry;
  registry.add(graft::MethodList<graft::LoRAMethod<float>>{});
  graft::BasicAdapterModel<float> adapters(network.sites, registry);

  const std::vector<std::string> tasks{"step", "sine"};
  for (const auto& name : tasks) {
    graft::LoRAConfig config;
    config.rank = 4;
    config.alpha = 8;
    config.target_modules.names = {"hidden", "out"};
    adapters.add(name, config, 3);  // now it alone is active
    graft::AdamW optimizer(adapters.parameters(), {.learning_rate = 2e-2});
    for (int step = 0; step < 400; ++step) {
      const auto x = normal(rng, {64, 8});
      auto y = graft::Tensor::empty({64, 1});
      for (Index i = 0; i < 64; ++i) y[i] = task(name, x.data() + i * 8);
      graft::Tape tape;
      tape.backward(graft::mse(network(tape.constant(x)), tape.constant(y)));
      optimizer.step();
      optimizer.zero_grad();
    }
  }

  // One batch: rows of both tasks, and rows of the frozen network alone.
  const Index rows = 300;
  const auto x = normal(rng, {rows, 8});
  const auto context = std::make_shared<graft::ForwardContext>();
  context->batch = rows;
  for (Index i = 0; i < rows; ++i)
    context->row_adapters.push_back(i % 3 == 2 ? "__base__"
                                               : tasks[static_cast<std::size_t>(i % 3)]);
  graft::Tape tape({.gradients = false, .training = false});
  tape.set_context(context);
  const auto mixed = network(tape.constant(x)).value();

  adapters.activate({});
  graft::Tape plain({.gradients = false, .training = false});
  const auto base = network(plain.constant(x)).value();
  double error[2] = {0, 0}, base_error[2] = {0, 0}, base_difference = 0;
  for (Index i = 0; i < rows; ++i) {
    if (i % 3 == 2) {
      base_difference =
          std::max(base_difference, std::abs(static_cast<double>(mixed[i] - base[i])));
      continue;
    }
    const float y = task(tasks[static_cast<std::size_t>(i % 3)], x.data() + i * 8);
    error[i % 3] += std::pow(static_cast<double>(mixed[i] - y), 2) / 100;
    base_error[i % 3] += std::pow(static_cast<double>(base[i] - y), 2) / 100;
  }
  for (std::size_t k = 0; k < 2; ++k)
    std::printf("%-8s mean squared error %.3f, without its adapter %.3f\n", tasks[k].c_str(),
                error[k], base_error[k]);
  std::printf("rows without adapters differ by %.1e from the frozen network\n", base_difference);
  const bool good = error[0] < 0.3 * base_error[0] && error[1] < 0.3 * base_error[1];
  return good && base_difference < 1e-5 ? 0 : 1;
}
