// AdaLoRA's budget, fed with given gradients: which triplets every step keeps, the loss that it
// adds, and the reduced adapter.
#include "graft/adapters/low_rank/adalora.hpp"

#include "graft/optim/sgd.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::AdapterModel;
using graft::Tensor;

/// Tensors of an adapter by their keys.
std::map<std::string, graft::Parameter> parameters_of(const graft::AdapterSet<float>& set) {
  std::map<std::string, graft::Parameter> list;
  for (const auto& [key, tensor] : set.tensors()) list[key] = tensor.parameter;
  return list;
}

void check_regulariser(Checker& check, const graft::AdapterSet<float>& set,
                       const SafetensorsFile& file) {
  graft::Tape tape;
  const auto loss = set.auxiliary_loss(tape);
  const auto expected = graft::io::to_f64(file.at("regulariser"));
  check.compare("regulariser", std::vector<double>{loss ? loss.item() : 0.0}, expected);
  if (!loss) return;
  tape.backward(loss);
  for (const auto& [key, parameter] : parameters_of(set)) {
    const auto* view = file.find("regulariser_grad." + key);
    if (view == nullptr) continue;
    const auto grad = parameter.grad() ? parameter.grad() : Tensor::zeros(parameter.shape());
    check.compare(view->name, values_of(grad), graft::io::to_f64(*view));
    parameter.zero_grad();
  }
}

void run_allocator(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  Toy<float> toy(c.json.value("module", Json()), file, "");
  AdapterModel model(toy.sites(), methods<float>());
  auto config = graft::read_config_file(c.folder / "adapter_config.json");
  config.erase("rank_pattern");  // the result of the trace
  graft::TorchGenerator generator(0);
  auto& set = model.add("default", config, generator);
  const auto parameters = parameters_of(set);
  for (const auto& [key, parameter] : parameters)
    parameter.assign(tensor_of<float>(file, "initial." + key));
  check_regulariser(check, set, file);

  const Json& optimizer = c.json.at("optimizer");
  if (optimizer.value("type", "") != "SGD") throw Unsupported{"another optimiser than SGD"};
  graft::Sgd sgd(set.parameters(), {.learning_rate = optimizer.at("lr")});
  const auto& trace = c.json.at("trace");
  const auto total = static_cast<Index>(trace.size());
  for (const auto& entry : trace) {
    const auto t = entry.at("step").get<Index>();
    for (const auto& [key, parameter] : parameters)
      if (file.find(concat("step", t, ".grad.", key)) != nullptr)
        parameter.mutable_grad() = tensor_of<float>(file, concat("step", t, ".grad.", key));
    sgd.step();
    set.procedure()->after_step({t, total, optimizer.at("lr")});
    for (const auto& [key, kept] : entry.at("nonzero").items()) {
      const auto values = parameters.at(key).value();
      std::vector<bool> found;
      for (const float v : values) found.push_back(v != 0);
      check.require(found == kept.get<std::vector<bool>>(),
                    concat("step ", t, " keeps other triplets of ", key));
    }
    for (const auto& [key, parameter] : parameters)
      if (const auto* view = file.find(concat("step", t, ".", key)))
        check.compare(view->name, values_of(parameter.value()), graft::io::to_f64(*view));
    const auto* procedure = dynamic_cast<const graft::AdaLoRAProcedure<float>*>(set.procedure());
    if (procedure != nullptr)
      check.require(procedure->budget_at(t, total) == entry.at("budget").get<Index>(),
                    concat("another budget at step ", t));
  }
  for (const auto& [key, parameter] : parameters)
    if (const auto* view = file.find("final." + key))
      check.compare(view->name, values_of(parameter.value()), graft::io::to_f64(*view));

  // What is saved is what the reference saved, and runs.
  const ScratchFolder scratch;
  model.save("default", scratch.path);
  const auto saved = SafetensorsFile::open(scratch.path / "adapter_model.safetensors");
  const auto expected = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  check.require(saved.tensors().size() == expected.tensors().size(), "another number of tensors");
  for (const auto& view : expected.tensors()) {
    const auto* found = saved.find(view.name);
    if (found == nullptr || found->shape != view.shape)
      check.fail(view.name, concat(view.name, " is missing or has another shape"));
    else
      check.compare("saved " + view.name, graft::io::to_f64(*found), graft::io::to_f64(view));
  }
  const auto written = graft::io::read_json(scratch.path / "adapter_config.json");
  check.require(written.value("rank_pattern", Json()) == c.json.at("rank_pattern"),
                "another rank_pattern");
  AdapterModel again(toy.sites(), methods<float>());
  again.load("reduced", c.folder);
  const auto* x = file.find("x");
  if (x == nullptr || file.find("y") == nullptr) return;
  check_outputs(check, toy, toy.inputs(file), file, "y");
}

const Handler allocator({.kind = "adalora", .peft_type = "ADALORA"}, run_allocator);

}  // namespace
}  // namespace conformance
