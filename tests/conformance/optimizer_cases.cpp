// Optimisers that know the factors of a low-rank update: some steps on a small module.
#include "graft/autograd/ops/loss.hpp"
#include "graft/compose/low_rank_pairs.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/optim/lora_fa.hpp"
#include "graft/optim/lora_plus.hpp"
#include "graft/optim/riemannian.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::AdapterModel;

std::unique_ptr<graft::Optimizer> make_optimizer(const std::string& name, const Json& options,
                                                 const graft::AdapterSet<float>& set) {
  const double rate = options.at("lr");
  const graft::AdamWConfig adamw{.learning_rate = rate,
                                 .beta1 = options.value("/betas/0"_json_pointer, 0.9),
                                 .beta2 = options.value("/betas/1"_json_pointer, 0.999),
                                 .eps = options.value("eps", 1e-8),
                                 .weight_decay = options.value("weight_decay", 0.01)};
  std::unique_ptr<graft::Optimizer> optimizer;
  if (name == "loraplus") {
    const graft::LoRAPlusConfig plus{
        .learning_rate = rate,
        .ratio = options.at("loraplus_lr_ratio"),
        .embedding_learning_rate = options.value("loraplus_lr_embedding", 1e-6),
        .weight_decay = options.value("loraplus_weight_decay", 0.0)};
    optimizer = std::make_unique<graft::AdamW>(
        graft::lora_plus_groups(graft::named_parameters(set), plus), adamw);
  } else if (name == "lorafa") {
    optimizer = std::make_unique<graft::LoRAFA>(
        graft::low_rank_pairs(set),
        graft::LoRAFAConfig{.learning_rate = rate,
                            .weight_decay = options.value("weight_decay", 0.0),
                            .bf16_product = true},
        set.parameters());
  } else if (name == "riemannian") {
    const graft::RiemannianPreconditioner preconditioner(graft::low_rank_pairs(set),
                                                         options.value("reg", 1e-2));
    optimizer = std::make_unique<graft::AdamW>(set.parameters(), adamw);
    optimizer->before_step = [preconditioner] { preconditioner.apply(); };
  } else {
    throw Unsupported{concat("optimiser ", name)};
  }
  return optimizer;
}

void run_optimizer(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  Toy<float> toy(c.json.value("module", Json()), file, "");
  AdapterModel model(toy.sites(), methods<float>());
  auto& set = model.load("default", c.folder / "initial");
  const auto in = toy.inputs(file);
  const auto target = tensor_of<float>(file, "target");
  const std::string name = c.json.value("name", "").substr(std::string("optimiser_").size());
  const auto optimizer = make_optimizer(name.substr(0, name.find('_')), c.json.at("options"), set);
  const auto expected = graft::io::to_f64(file.at("losses"));
  for (std::size_t t = 0; t < expected.size(); ++t) {
    graft::Tape tape;
    const auto loss = graft::mse(toy(tape, in)[0], tape.constant(target));
    const double found = loss.item();
    check.add(concat("loss of step ", t + 1), std::abs(found - expected[t]),
              std::abs(found - expected[t]) / std::abs(expected[t]), check.tolerance());
    tape.backward(loss);
    optimizer->step();
    optimizer->zero_grad();
  }
  const auto last = SafetensorsFile::open(c.folder / "final" / "adapter_model.safetensors");
  for (const auto& [key, tensor] : set.tensors())
    check.compare("final " + key, values_of(tensor.parameter.value()),
                  graft::io::to_f64(last.at(key)));
}

const Handler optimisers({.kind = "multi", .name = "optimiser_"}, run_optimizer);

}  // namespace
}  // namespace conformance
