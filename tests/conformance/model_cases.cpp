// Cases of whole models: logits, loss, gradients, twenty steps of AdamW.
#include <cmath>

#include "graft/kernels/optimizer.hpp"
#include "graft/models/load.hpp"
#include "registry.hpp"
#include "support.hpp"

namespace conformance {
namespace {

namespace fs = std::filesystem;
using graft::AdapterModel;
using graft::Tape;
using graft::Tensor;
using graft::models::Batch;

Batch batch_of(const SafetensorsFile& file, const std::string& prefix) {
  Batch batch;
  batch.ids = ids_of(file, prefix + ".input_ids");
  if (const auto* ids = file.find(prefix + ".input_ids")) {
    batch.batch = ids->shape.at(0);
    batch.seq_len = ids->shape.at(1);
  }
  batch.token_types = ids_of(file, prefix + ".token_type_ids");
  if (const auto* mask = file.find(prefix + ".attention_mask"))
    for (std::int64_t m : graft::io::to_i64(*mask)) batch.mask.push_back(m != 0);
  if (const auto* labels = file.find(prefix + ".labels")) {
    if (labels->dtype == graft::io::DType::f32)
      batch.targets = tensor_of<float>(file, prefix + ".labels");
    else
      batch.labels = graft::io::to_i64(*labels);
  }
  if (const auto* tasks = file.find(prefix + ".task_ids"))
    batch.task_ids = graft::io::to_i64(*tasks);
  if (file.find(prefix + ".pixel_values") != nullptr) {
    batch.pixels = tensor_of<float>(file, prefix + ".pixel_values");
    batch.batch = batch.pixels.dim(0);
  }
  return batch;
}

/// Logits of real tokens only: rows of masked positions are dropped from both.
void compare_logits(Checker& check, const std::string& quantity, const Tensor& found,
                    const std::vector<double>& expected, const Batch& batch) {
  auto a = values_of(found), b = expected;
  if (a.size() != b.size()) {
    check.fail(quantity, concat(quantity, ": ", a.size(), " values, expected ", b.size()));
    return;
  }
  const Index width = found.cols(), rows = found.rows();
  const Index tokens = batch.batch > 0 ? rows / batch.batch : 0, extra = tokens - batch.seq_len;
  if (!batch.mask.empty() && extra >= 0 && rows == batch.batch * tokens && tokens > 1)
    for (Index r = 0; r < rows; ++r) {
      const Index t = r % tokens - extra;
      if (t < 0 || batch.mask[static_cast<std::size_t>(r / tokens * batch.seq_len + t)] != 0)
        continue;
      for (Index j = 0; j < width; ++j)
        a[static_cast<std::size_t>(r * width + j)] = b[static_cast<std::size_t>(r * width + j)] = 0;
    }
  check.compare(quantity, a, b);
}

void train(Checker& check, const Case& c, graft::models::Model& model, AdapterModel& adapters,
           const Batch (&batches)[2]) {
  const Json& t = c.json.at("training");
  auto& set = adapters.at("default");
  const auto parameters = set.parameters();
  std::vector<Tensor> first, second;
  for (const auto& p : parameters) {
    p.zero_grad();
    first.push_back(Tensor::zeros(p.shape()));
    second.push_back(Tensor::zeros(p.shape()));
  }
  const double lr = t.at("lr"), beta1 = t.at("betas").at(0), beta2 = t.at("betas").at(1);
  const auto steps = t.at("steps").get<Index>();
  const auto& expected = t.at("losses");
  const double drift = t.contains("f32_vs_f64") ? t.at("f32_vs_f64").value("loss", 0.0) : 0.0;
  for (Index step = 1; step <= steps; ++step) {
    const graft::StepInfo info{step, steps, lr};
    if (auto* procedure = set.procedure()) procedure->before_step(info);
    Tape tape({.seed = static_cast<std::uint64_t>(step)});
    auto loss = model.loss(tape, batches[(step - 1) % 2]);
    if (const auto extra = adapters.auxiliary_loss(tape)) loss = add(loss, extra);
    const double want = expected.at(static_cast<std::size_t>(step - 1));
    const double error = std::abs(static_cast<double>(loss.item()) - want);
    check.add(concat("loss of step ", step), error, error / std::abs(want),
              std::max(1e-5, 10 * drift));
    tape.backward(loss);
    if (auto* procedure = set.procedure()) procedure->after_backward(info);
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const auto& p = parameters[i];
      if (!p.grad()) continue;
      const auto n = static_cast<double>(step);
      graft::kernels::adamw_step(p.value().data(), p.grad().data(), first[i].data(),
                                 second[i].data(), p.size(), lr, beta1, beta2, t.value("eps", 1e-8),
                                 t.value("weight_decay", 0.0), 1 - std::pow(beta1, n),
                                 1 - std::pow(beta2, n), 1.0);
    }
    if (auto* procedure = set.procedure()) procedure->after_step(info);
    for (const auto& p : parameters) p.zero_grad();
  }
  if (!t.contains("final")) return;
  const auto final_file = SafetensorsFile::open(c.folder / t.at("final").get<std::string>());
  const double final_drift =
      t.contains("f32_vs_f64") ? t.at("f32_vs_f64").value("final_tensors", 0.0) : 0.0;
  for (const auto& [key, tensor] : set.tensors()) {
    const auto* view = final_file.find(key);
    if (view == nullptr || !tensor.parameter || !tensor.saved) continue;
    if (static_cast<Index>(view->elements()) != tensor.parameter.size())
      continue;  // a reduced rank
    check.compare("final " + key, values_of(tensor.parameter.value()), graft::io::to_f64(*view),
                  std::max(1e-5, 10 * final_drift));
  }
}

fs::path model_folder(const Case& c) {
  // Model cases lie side by side: <folder of models>/<arch>/base.
  return c.folder.parent_path();
}

}  // namespace

Result run_model_case(const Case& c) {
  Checker check(tolerance_of(c.json));
  if (!c.json.contains("arch")) {
    const auto model = graft::models::load<float>(c.folder / "base");
    const auto inputs = SafetensorsFile::open(c.folder / "inputs.safetensors");
    for (int i = 0; i < 2; ++i) {
      const std::string prefix = concat("batch", i);
      if (inputs.find(prefix + ".base_logits") == nullptr) continue;
      const Batch batch = batch_of(inputs, prefix);
      Tape tape({.gradients = false, .training = false});
      compare_logits(check, prefix, model->logits(tape, batch).value(),
                     graft::io::to_f64(inputs.at(prefix + ".base_logits")), batch);
      if (c.json.contains("base_loss")) {
        const double want = c.json.at("base_loss").at(static_cast<std::size_t>(i));
        const double found = model->loss(tape, batch).item();
        check.add(prefix + " loss", std::abs(found - want), std::abs(found - want) / std::abs(want),
                  1e-5);
      }
    }
    return check.result();
  }
  const fs::path models = model_folder(c);
  const auto model = graft::models::load<float>(models / c.json.at("base").get<std::string>());
  const auto inputs = SafetensorsFile::open(models / c.json.at("inputs").get<std::string>());
  const auto file = SafetensorsFile::open(c.folder / "case.safetensors");
  AdapterModel adapters(model->sites(), methods());
  graft::LoadReport report;
  auto& set = adapters.load("default", c.folder, false, &report);
  // Tensors that the checkpoint does not hold.
  for (const auto& [key, tensor] : set.tensors())
    if (const auto* view = file.find("param." + key); view != nullptr && tensor.parameter) {
      tensor.parameter.assign(Tensor::from(graft::io::to_f64(*view), tensor.parameter.shape()));
      std::erase(report.missing, key);
    }
  if (!report.ok()) check.fail("checkpoint", report.text());
  for (const auto& placed : set.parts()) placed.part->after_load();
  const Batch batches[2] = {batch_of(inputs, "batch0"), batch_of(inputs, "batch1")};
  {
    Tape tape({.gradients = false, .training = false});
    compare_logits(check, "logits", model->logits(tape, batches[0]).value(),
                   graft::io::to_f64(file.at("logits")), batches[0]);
  }
  Tape tape;
  auto loss = model->loss(tape, batches[0]);
  if (const auto extra = adapters.auxiliary_loss(tape)) loss = add(loss, extra);
  const double want = c.json.at("loss");
  const double error = std::abs(static_cast<double>(loss.item()) - want);
  check.add("loss", error, error / std::abs(want), std::max(1e-5, check.tolerance()));
  tape.backward(loss);
  for (const auto& view : file.tensors()) {
    if (view.name.rfind("grad.", 0) != 0) continue;
    bool found = false;
    for (const auto& [key, tensor] : set.tensors())
      if (tensor.parameter && "grad." + key == view.name) {
        found = true;
        const auto g = tensor.parameter.grad() ? tensor.parameter.grad()
                                               : Tensor::zeros(tensor.parameter.shape());
        check.compare(view.name, values_of(g), graft::io::to_f64(view));
      }
    if (!found) check.fail(view.name, concat(view.name, " has no parameter"));
  }
  if (c.json.contains("training")) train(check, c, *model, adapters, batches);
  return check.result();
}

}  // namespace conformance
