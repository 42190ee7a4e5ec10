// Saving an adapter in the format of Hugging Face PEFT, and reading it back.
//
// The folder holds adapter_config.json and adapter_model.safetensors. In Python, for a torch module
// `net` with a Linear(8, 16) called `hidden`:
//
//     from peft import PeftModel
//     adapted = PeftModel.from_pretrained(net, "graft-example-adapter")
//
// or the tensors alone: safetensors.torch.load_file(folder + "/adapter_model.safetensors").
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/optim/adamw.hpp"

namespace {

graft::Tensor normal(std::uint64_t seed, const graft::Shape& shape) {
  auto t = graft::Tensor::empty(shape);
  graft::TorchGenerator(seed).normal(t.data(), t.size());
  return t;
}

// The frozen layer under the name that it has in the Python model, and its adapters.
struct Model {
  graft::LinearSite hidden{"hidden", graft::DenseLinear(normal(1, {16, 8}))};
  graft::SiteTable sites;
  graft::MethodRegistry<float> registry;
  graft::BasicAdapterModel<float> adapters{sites, registry};

  Model() {
    sites.linear = {&hidden};
    registry.add(graft::MethodList<graft::LoRAMethod<float>>{});
  }
  graft::Tensor run(const graft::Tensor& x) const {
    graft::Tape tape({.gradients = false, .training = false});
    return hidden(tape.constant(x)).value().clone();
  }
};

}  // namespace

int main(int argc, char** argv) {
  const char* given = argc > 1 ? argv[1] : std::getenv("GRAFT_EXAMPLE_FOLDER");
  const std::filesystem::path folder = given != nullptr ? given : "graft-example-adapter";

  Model model;
  graft::LoRAConfig config;
  config.rank = 2;
  config.alpha = 4;
  config.target_modules.names = {"hidden"};
  model.adapters.add("default", config);
  graft::AdamW optimizer(model.adapters.parameters(), {.learning_rate = 1e-2});
  const auto x = normal(2, {32, 8}), y = normal(3, {32, 16});
  for (int step = 0; step < 50; ++step) {
    graft::Tape tape;
    tape.backward(graft::mse(model.hidden(tape.constant(x)), tape.constant(y)));
    optimizer.step();
    optimizer.zero_grad();
  }
  model.adapters.save("default", folder);
  std::printf("%s:\n", folder.string().c_str());
  const auto file = graft::io::SafetensorsFile::open(folder / "adapter_model.safetensors");
  for (const auto& tensor : file.tensors())
    std::printf("  %s [%td, %td]\n", tensor.name.c_str(), tensor.shape[0], tensor.shape[1]);

  // Another program: the same frozen weights, the adapter from the folder.
  Model other;
  const auto without = other.run(x);
  other.adapters.load("default", folder);
  const auto wanted = model.run(x), loaded = other.run(x);
  const bool same = std::equal(wanted.begin(), wanted.end(), loaded.begin());
  const bool does_something = !std::equal(wanted.begin(), wanted.end(), without.begin());
  std::printf("read back: %s\n", same ? "the same bits" : "other results");
  return same && does_something ? 0 : 1;
}
