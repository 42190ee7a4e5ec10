// A training loop with checkpoints: a run that is stopped and goes on ends with the bits of an
// unbroken one.
//
// What a step depends on is the adapter, the optimiser's state and the step number: the first two
// are in the checkpoint, batches and dropout are functions of the third.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/train/checkpoint.hpp"

namespace {

using graft::Index;
constexpr Index kSteps = 60, kEvery = 20;

graft::Tensor normal(std::uint64_t seed, const graft::Shape& shape) {
  auto t = graft::Tensor::empty(shape);
  graft::TorchGenerator(seed).normal(t.data(), t.size());
  return t;
}

struct Run {
  graft::LinearSite layer{"layer", graft::DenseLinear(normal(1, {12, 20}))};
  graft::SiteTable sites;
  graft::MethodRegistry<float> registry;
  graft::BasicAdapterModel<float> adapters{sites, registry};
  std::unique_ptr<graft::AdamW> optimizer;

  Run() {
    sites.linear = {&layer};
    registry.add(graft::MethodList<graft::LoRAMethod<float>>{});
    graft::LoRAConfig config;
    config.rank = 4;
    config.dropout = 0.1;
    config.target_modules.names = {"layer"};
    adapters.add("default", config);
    optimizer = std::make_unique<graft::AdamW>(adapters.parameters(),
                                               graft::AdamWConfig{.learning_rate = 1e-2});
  }

  /// Goes on from the newest checkpoint of the folder up to step `last`; returns the last loss.
  float train(const std::filesystem::path& folder, Index last) {
    Index step = 0;
    const auto checkpoints = graft::list_checkpoints(folder);
    if (!checkpoints.empty()) {
      graft::load_checkpoint(checkpoints.back().second, adapters, *optimizer);
      step = checkpoints.back().first;
      std::printf("goes on from step %td\n", step);
    }
    const graft::Tensor target = normal(2, {12, 20});
    float value = 0;
    while (step < last) {
      ++step;
      const auto key = static_cast<std::uint64_t>(step);
      graft::Tape tape({.seed = key});  // dropout
      const auto x = tape.constant(normal(100 + key, {16, 20}));
      const auto wanted = graft::affine(x, tape.constant(target));
      const auto loss = graft::mse(layer(x), wanted);
      tape.backward(loss);
      optimizer->step();
      optimizer->zero_grad();
      value = loss.item();
      if (step % kEvery == 0) {
        graft::save_checkpoint(folder, step, adapters, *optimizer, {{"loss", value}});
        std::printf("step %td  loss %.4f  saved\n", step, static_cast<double>(value));
      }
    }
    return value;
  }
};

}  // namespace

int main(int argc, char** argv) {
  const char* given = argc > 1 ? argv[1] : std::getenv("GRAFT_EXAMPLE_FOLDER");
  const std::filesystem::path folder = given != nullptr ? given : "graft-example-run";
  std::filesystem::remove_all(folder / "unbroken");
  std::filesystem::remove_all(folder / "stopped");

  Run unbroken;
  unbroken.train(folder / "unbroken", kSteps);
  Run first;
  first.train(folder / "stopped", 47);  // stopped after step 47; the last checkpoint is that of 40
  Run second;
  second.train(folder / "stopped", kSteps);

  bool same = true;
  const auto a = unbroken.adapters.parameters(), b = second.adapters.parameters();
  for (std::size_t i = 0; i < a.size(); ++i)
    same = same && std::equal(a[i].value().begin(), a[i].value().end(), b[i].value().begin());
  std::printf("stopped and unbroken run: %s\n", same ? "the same bits" : "different");
  return same ? 0 : 1;
}
