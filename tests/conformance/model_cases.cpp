// Cases of whole models: logits, loss, gradients, twenty steps of AdamW.
#include <cmath>

#include "graft/adapters/low_rank/ist.hpp"
#include "graft/models/load.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/quant/int8.hpp"
#include "graft/quant/nf4.hpp"
#include "layer_run.hpp"
#include "model_run.hpp"

namespace conformance {
namespace {

using graft::AdapterModel;
using graft::Tape;
using graft::Tensor;
using graft::models::Batch;

Batch batch_of(const SafetensorsFile& file, const std::string& prefix) {
  const auto named = [&](std::initializer_list<const char*> names) {
    for (const char* name : names)
      if (file.find(prefix + name) != nullptr) return prefix + name;
    return std::string();
  };
  Batch batch;
  if (const auto ids = named({"input_ids", "ids"}); !ids.empty()) {
    batch.ids = ids_of(file, ids);
    batch.batch = file.at(ids).shape.at(0);
    batch.seq_len = file.at(ids).shape.at(1);
  }
  batch.token_types = ids_of(file, prefix + "token_type_ids");
  if (const auto mask = named({"attention_mask", "mask"}); !mask.empty())
    for (double m : graft::io::to_f64(file.at(mask))) batch.mask.push_back(m != 0);
  if (const auto* labels = file.find(prefix + "labels")) {
    if (labels->dtype == graft::io::DType::f32)
      batch.targets = tensor_of<float>(file, prefix + "labels");
    else
      batch.labels = graft::io::to_i64(*labels);
  }
  if (const auto* tasks = file.find(prefix + "task_ids"))
    batch.task_ids = graft::io::to_i64(*tasks);
  for (const auto length : ids_of(file, prefix + "prompt_lengths"))
    batch.prompt_lengths.push_back(length);
  if (const auto* instruction = file.find(prefix + "instruction_mask"))
    for (double m : graft::io::to_f64(*instruction)) batch.instruction_mask.push_back(m != 0);
  batch.visual = tensor_of<float>(file, prefix + "visual_tokens");
  if (const auto* modality = file.find(prefix + "modality"))
    batch.modality = graft::io::to_i64(*modality);
  if (const auto pixels = named({"pixel_values", "pixels"}); !pixels.empty()) {
    batch.pixels = tensor_of<float>(file, pixels);
    batch.batch = batch.pixels.dim(0);
  }
  return batch;
}

/// Logits of real tokens only: rows of masked positions are dropped from both, those of virtual
/// tokens where the case leaves them out.
void compare_logits(Checker& check, const std::string& quantity, const Tensor& found,
                    const std::vector<double>& expected, const Batch& batch) {
  auto a = values_of(found), b = expected;
  if (const auto real = static_cast<std::size_t>(batch.batch * batch.seq_len * found.cols());
      found.shape().rank() == 3 && a.size() > b.size() && b.size() == real) {
    Tape tape({.gradients = false, .training = false});
    const auto y = tape.constant(found);
    const auto text = slice(y, 1, found.dim(1) - batch.seq_len, batch.seq_len).value();
    compare_logits(check, quantity, text, expected, batch);
    return;
  }
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

/// Loss with what the adapters add to it. AdaLoRA without a task type: PEFT calls the model itself,
/// past what would add the regulariser.
graft::Var objective_of(Tape& tape, const graft::models::Model& model, AdapterModel& adapters,
                        const Batch& batch) {
  const auto loss = adapters.training_loss(tape, model.passes(tape, batch));
  if (adapters.active().size() == 1) {
    const auto& set = adapters.at(adapters.active().front());
    const auto task = set.given_config().find("task_type");
    if (set.info().peft_type == "ADALORA" && task != set.given_config().end() &&
        task->second.is_null())
      return loss;
  }
  const auto extra = adapters.auxiliary_loss(tape);
  return extra ? add(loss, extra) : loss;
}

/// Runs `steps` steps of AdamW over the batches in turn; `see(step, loss)` is told the objective
/// before each step.
template <class See>
void train(graft::models::Model& model, AdapterModel& adapters, const std::vector<Batch>& batches,
           const graft::AdamWConfig& options, Index steps, See&& see) {
  auto& set = adapters.at("default");
  for (const auto& p : set.parameters()) p.zero_grad();
  graft::AdamW optimizer(set.parameters(), options);
  for (Index step = 1; step <= steps; ++step) {
    const graft::StepInfo info{step, steps, options.learning_rate};
    if (auto* procedure = set.procedure()) procedure->before_step(info);
    Tape tape({.seed = static_cast<std::uint64_t>(step)});
    const auto loss = objective_of(tape, model, adapters,
                                   batches[static_cast<std::size_t>(step - 1) % batches.size()]);
    see(step, static_cast<double>(loss.item()));
    tape.backward(loss);
    if (auto* procedure = set.procedure()) procedure->after_backward(info);
    optimizer.step();
    if (auto* procedure = set.procedure()) procedure->after_step(info);
    optimizer.zero_grad();
  }
}

void check_training(Checker& check, const Case& c, graft::models::Model& model,
                    AdapterModel& adapters, const std::vector<Batch>& batches,
                    const SafetensorsFile& file) {
  const Json& t = c.json.at("training");
  const auto& expected = t.at("losses");
  const Json drift = t.value("f32_vs_f64", Json::object());
  const double allowed = std::max(1e-5, 10 * drift.value("loss", 0.0));
  train(model, adapters, batches,
        {.learning_rate = t.at("lr"),
         .beta1 = t.at("betas").at(0),
         .beta2 = t.at("betas").at(1),
         .eps = t.value("eps", 1e-8),
         .weight_decay = t.value("weight_decay", 0.0)},
        t.at("steps").get<Index>(), [&](Index step, double loss) {
          const double want = expected.at(static_cast<std::size_t>(step - 1));
          check.add(concat("loss of step ", step), std::abs(loss - want),
                    std::abs(loss - want) / std::abs(want), allowed);
        });
  if (!t.contains("final")) return;
  const auto final_file = SafetensorsFile::open(c.folder / t.at("final").get<std::string>());
  auto tensors = adapters.at("default").tensors();
  for (auto& entry : adapters.at("default").file_tensors())
    if (std::none_of(tensors.begin(), tensors.end(),
                     [&](const auto& other) { return other.key == entry.key; }))
      tensors.push_back(entry);
  // AdamW makes steps of one size from gradients that are rounding alone.
  const auto zero = zero_gradients(file, "grad.");
  for (const auto& [key, tensor] : tensors) {
    if (zero.contains(key)) continue;
    const auto* view = final_file.find(key);
    if (view == nullptr) view = file.find("final_param." + key);
    if (view == nullptr || !tensor.parameter) continue;
    if (static_cast<Index>(view->elements()) != tensor.parameter.size())
      continue;  // a reduced rank
    check.compare("final " + key, values_of(tensor.parameter.value()), graft::io::to_f64(*view),
                  std::max(1e-5, 10 * drift.value("final_tensors", 0.0)));
  }
}

/// The model with the adapter folded in gives the same logits, where the method can be folded in.
void check_merged_model(Checker& check, const graft::models::Model& model, AdapterModel& adapters,
                        const Batch& batch) {
  Tape tape({.gradients = false, .training = false});
  const auto before = model.logits(tape, batch).value().clone();
  try {
    adapters.merge({.dequantize = true});
  } catch (const graft::ValueError&) {
    return;
  }
  compare_logits(check, "merged logits", model.logits(tape, batch).value(), values_of(before),
                 batch);
  adapters.unmerge();
  const auto after = model.logits(tape, batch).value();
  check.require(std::equal(before.begin(), before.end(), after.begin()),
                "unmerged, the logits have other bits");
}

/// Biases that PEFT stores are in a file of graft's too, under all of their names.
void check_saved_biases(Checker& check, const AdapterModel& adapters,
                        const SafetensorsFile& checkpoint) {
  const ScratchFolder scratch;
  adapters.save("default", scratch.path);
  const auto saved = SafetensorsFile::open(scratch.path / "adapter_model.safetensors");
  for (const auto& view : checkpoint.tensors())
    if (view.name.ends_with(".bias") && view.name.find(".modules_to_save.") == view.name.npos &&
        view.name.find(".original_module.") == view.name.npos)
      check.require(saved.find(view.name) != nullptr, concat(view.name, " is not saved"));
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
      const Batch batch = batch_of(inputs, prefix + ".");
      Tape tape({.gradients = false, .training = false});
      compare_logits(check, prefix, model->logits(tape, batch).value(),
                     graft::io::to_f64(inputs.at(prefix + ".base_logits")), batch);
      if (c.json.contains("base_loss")) {
        const double want = c.json.at("base_loss").at(static_cast<std::size_t>(i));
        const auto compare = [&](const std::string& name, double found) {
          check.add(prefix + name, std::abs(found - want), std::abs(found - want) / std::abs(want),
                    1e-5);
        };
        compare(" loss", model->loss(tape, batch).item());
        compare(" loss of logits", model->loss_of(model->logits(tape, batch), batch).item());
      }
    }
    return check.result();
  }
  const fs::path models = model_folder(c);
  const auto model = graft::models::load<float>(models / c.json.at("base").get<std::string>());
  const auto inputs = SafetensorsFile::open(models / c.json.at("inputs").get<std::string>());
  const auto file = tensors_of(c);
  AdapterModel adapters(model->sites(), methods<float>());
  graft::LoadReport report;
  auto& set = adapters.load("default", c.folder, false, &report);
  // Tensors that the checkpoint does not hold, as if it held them.
  const auto checkpoint = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  for (const auto& placed : set.parts()) {
    std::map<std::string, graft::Shape> found;
    placed.part->before_load([&](std::string_view name) -> const graft::Shape* {
      graft::AdapterTensor<float> probe;
      probe.name = name;
      for (const auto scope :
           {graft::AdapterTensor<float>::Scope::site, graft::AdapterTensor<float>::Scope::model,
            graft::AdapterTensor<float>::Scope::root}) {
        probe.scope = scope;
        const auto key = set.key_of(placed.path, probe);
        const auto* view = checkpoint.find(key);
        if (view == nullptr) view = file.find("param." + key);
        if (view != nullptr)
          return &found.emplace(key, graft::Shape(view->shape.begin(), view->shape.end()))
                      .first->second;
      }
      return nullptr;
    });
  }
  for (const auto& [key, tensor] : set.tensors())
    if (const auto* view = file.find("param." + key); view != nullptr && tensor.parameter) {
      tensor.parameter.assign(Tensor::from(graft::io::to_f64(*view), tensor.parameter.shape()));
      std::erase(report.missing, key);
    }
  if (!report.ok()) check.fail("checkpoint", report.text());
  for (const auto& placed : set.parts()) placed.part->after_load();
  check_saved_biases(check, adapters, checkpoint);
  // A case may have batches of its own.
  const auto& source = file.find("batch0.input_ids") != nullptr ? file : inputs;
  std::vector<Batch> batches = {batch_of(source, "batch0."), batch_of(source, "batch1.")};
  if (const Json arguments = c.json.value("forward_arguments", Json::object());
      arguments.contains("task_ids"))
    for (auto& batch : batches)
      batch.task_ids = arguments.at("task_ids").get<std::vector<std::int64_t>>();
  {
    Tape tape({.gradients = false, .training = false});
    compare_logits(check, "logits", model->logits(tape, batches[0]).value(),
                   graft::io::to_f64(file.at("logits")), batches[0]);
  }
  Tape tape;
  const auto loss = objective_of(tape, *model, adapters, batches[0]);
  const double want = c.json.at("loss");
  const double error = std::abs(static_cast<double>(loss.item()) - want);
  check.add("loss", error, error / std::abs(want), std::max(1e-5, check.tolerance()));
  tape.backward(loss);
  compare_gradients(check, gradients_of(adapters, {"default"}), file, "grad.");
  check_trainable(check, c, set);
  check_merged_model(check, *model, adapters, batches[0]);
  if (c.json.contains("training")) check_training(check, c, *model, adapters, batches, file);
  return check.result();
}

/// Replaces the weights of all linear sites but the output layers by what is left of them in the
/// format that a configuration names. @throws Unsupported for another format
void quantise_base(graft::models::Model& model, const Json& format) {
  const std::string type = format.value("quant_type", "");
  for (auto* site : model.sites().linear) {
    if (model.sites().info.is_output_layer(site->path())) continue;
    const auto w = site->base().dense_weight();
    const std::span<const float> values(w.data(), static_cast<std::size_t>(w.size()));
    std::vector<float> decoded;
    if (type == "nf4" || type == "fp4")
      decoded = graft::quant::decode_4bit(graft::quant::encode_4bit(
          values,
          {.book = type == "nf4" ? graft::quant::CodeBook::nf4 : graft::quant::CodeBook::fp4,
           .block = format.value("blocksize", Index{64}),
           .double_quantised = format.value("double_quant", false),
           .scale_group = format.value("nested_blocksize", Index{256})}));
    else if (type == "int8_rowwise")
      decoded = graft::quant::decode_int8(graft::quant::encode_int8(values, w.rows(), w.cols()));
    else
      throw Unsupported{concat("base quantised as ", type)};
    site->set_base(graft::DenseLinear(Tensor::from(decoded, w.shape()), site->base().bias()));
  }
}

/// A method that PEFT lacks on a tiny model: inputs and results in one file, a trace of five steps.
Result run_method_model_case(const Case& c, const std::function<void(AdapterModel&)>& prepare,
                             const std::function<void(Checker&, AdapterModel&)>& inspect) {
  return run_method_model_case(c, MethodModelSteps{.prepare = prepare, .inspect = inspect});
}
Result run_method_model_case(const Case& c, const MethodModelSteps& steps) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  const auto base = c.json.at("base").get<std::string>();
  const auto model = graft::models::load<float>(
      (base.starts_with("..") ? c.folder : c.folder.parent_path()) / base);
  const std::vector<Batch> batches = {batch_of(file, "")};
  Checker check(tolerance_of(c.json));
  const bool training = steps.objective && c.json.value("mode", "eval").starts_with("train");
  const auto logits = [&](const std::string& name, double tolerance) {
    const auto* view = file.find(name);
    if (view == nullptr) return;
    Tape tape({.gradients = false, .training = training});
    Checker part(tolerance);
    compare_logits(part, name, model->logits(tape, batches[0]).value(), graft::io::to_f64(*view),
                   batches[0]);
    check.merge(part.result(), "");
  };
  logits("logits_base", check.tolerance());
  if (file.find("logits") != nullptr) logits("y_base", check.tolerance());
  const Json settings = config_of(c);
  if (settings.contains("base_quantisation")) {
    quantise_base(*model, settings.at("base_quantisation"));
    logits("quantised_base_logits", check.tolerance());
  }
  AdapterModel adapters(model->sites(), methods<float>());
  auto& set = adapters.load("default", c.folder);
  if (steps.prepare) steps.prepare(adapters);
  logits("logits", check.tolerance());
  Tape tape({.training = training || !steps.objective});
  const auto compare_loss = [&](const std::string& name, double found) {
    const auto* view = file.find(name);
    if (view == nullptr) return;
    const double want = graft::io::to_f64(*view).at(0);
    check.add(name, std::abs(found - want), std::abs(found - want) / std::abs(want),
              check.tolerance());
  };
  auto loss = steps.objective ? objective_of(tape, *model, adapters, batches[0])
                              : model->loss(tape, batches[0]);
  // Cases of methods with a penalty tell the task's loss apart.
  if (!steps.objective && file.find("loss_task") != nullptr) {
    compare_loss("loss_task", loss.item());
    if (const auto extra = adapters.auxiliary_loss(tape)) loss = add(loss, extra);
  }
  compare_loss("loss", loss.item());
  if (steps.inspect) steps.inspect(check, adapters);
  for (const auto& p : set.parameters()) p.zero_grad();
  tape.backward(loss);
  compare_gradients(check, gradients_of(adapters, {"default"}), file, "grad.",
                    vanishing_gradients(c.json));
  check_auxiliary<float>(check, adapters, file, [&](Tape& other) {
    model->loss(other, batches[0]);
    return adapters.auxiliary_loss(other);
  });
  const Json merge = c.json.value("merge", Json::object());
  if (merge.is_object() && merge.value("supported", false))
    check_merged_model(check, *model, adapters, batches[0]);
  if (steps.after) steps.after(check, *model, adapters, batches[0]);
  // Losses before each step and, where there is one more, after the last.
  for (const char* name : {"loss_trace", "trace_loss", "losses", "trace"}) {
    const auto* view = file.find(name);
    if (view == nullptr) continue;
    const auto expected = graft::io::to_f64(*view);
    const Json trace = c.json.value("trace", Json());
    double tolerance = c.json.value("trace_tolerance", check.tolerance());
    if (trace.is_object()) tolerance = trace.value("tolerance", tolerance);
    const auto compare = [&](std::size_t step, double found) {
      if (step >= expected.size()) return;
      const double error = std::abs(found - expected[step]);
      check.add(concat("loss of step ", step + 1), error, error / std::abs(expected[step]),
                tolerance);
    };
    train(*model, adapters, batches,
          {.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0}, 5,
          [&](Index step, double found) { compare(static_cast<std::size_t>(step - 1), found); });
    Tape after({.gradients = false});
    compare(5, objective_of(after, *model, adapters, batches[0]).item());
    logits("logits_after", tolerance);
  }
  return check.result();
}

namespace {

/// IST: losses with layers turned down, the scores from them, and steps of a few layers each.
void run_ist(Checker& check, const Case& c) {
  check.merge(run_method_model_case(c,
                                    [](AdapterModel& adapters) {
                                      // The trace of the case is that of LoRA.
                                      adapters.at("default").set_procedure(nullptr);
                                    }),
              "");
  const auto file = tensors_of(c);
  const auto model = graft::models::load<float>(c.folder / c.json.at("base").get<std::string>());
  const Batch batch = batch_of(file, "");
  AdapterModel adapters(model->sites(), methods<float>());
  auto* ist =
      dynamic_cast<graft::ISTProcedure<float>*>(adapters.load("default", c.folder).procedure());
  if (ist == nullptr) return check.fail("procedure", "no IST");
  const auto losses = ist->measure([&] {
    Tape tape({.gradients = false, .training = false});
    return static_cast<double>(model->loss(tape, batch).item());
  });
  check.compare("suppressed_loss", losses, graft::io::to_f64(file.at("suppressed_loss")));
  check.compare("score", ist->scores().scores(), graft::io::to_f64(file.at("score")));
  std::vector<double> trace;
  const auto expected = graft::io::to_f64(file.at("ist_trace"));
  train(*model, adapters, {batch}, {.learning_rate = 1e-2, .weight_decay = 0},
        static_cast<Index>(expected.size()), [&](Index, double loss) { trace.push_back(loss); });
  check.compare("ist_trace", trace, expected);
}

const Handler ist_handler({.kind = "model", .peft_type = "IST"}, run_ist);

}  // namespace

}  // namespace conformance
