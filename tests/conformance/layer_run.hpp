#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "handlers.hpp"
#include "registry.hpp"
#include "toy.hpp"

/// Running a small module with adapters and comparing everything that a file holds of it.
namespace conformance {

namespace fs = std::filesystem;

/// A folder that is removed at the end.
struct ScratchFolder {
  fs::path path = fs::temp_directory_path() /
                  concat("graft-conformance-", reinterpret_cast<std::uintptr_t>(this));
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

/// Name of the only layer that a configuration means, for cases that do not describe their module.
inline std::string single_target(const fs::path& folder) {
  const auto path = folder / "adapter_config.json";
  if (!fs::exists(path)) return "";
  const auto targets = graft::io::read_json(path).value("target_modules", Json());
  return targets.is_array() && targets.size() == 1 ? targets.at(0).get<std::string>() : "";
}

/// The values of all outputs, one after the other.
template <class T>
std::vector<T> forward(const Toy<T>& toy, const Inputs<T>& in, bool training = false,
                       std::shared_ptr<const void> context = nullptr) {
  graft::BasicTape<T> tape({.gradients = false, .training = training});
  tape.set_context(std::move(context));
  std::vector<T> all;
  for (const auto& y : toy(tape, in)) all.insert(all.end(), y.value().begin(), y.value().end());
  return all;
}

/// Outputs of the module as it is, against the tensors of the file called `name`.
template <class T>
void check_outputs(Checker& check, const Toy<T>& toy, const Inputs<T>& in,
                   const SafetensorsFile& file, const std::string& name) {
  std::vector<double> expected;
  for (const auto& suffix : in.suffixes) {
    const auto* view = file.find(name + suffix);
    if (view == nullptr) return;
    const auto values = graft::io::to_f64(*view);
    expected.insert(expected.end(), values.begin(), values.end());
  }
  check.compare(name, forward(toy, in), expected);
}

/// Gradients of the adapters' tensors by their keys; zero where nothing arrived.
template <class T>
std::map<std::string, BasicTensor<T>> gradients_of(const graft::BasicAdapterModel<T>& model,
                                                   const std::vector<std::string>& adapters) {
  std::map<std::string, BasicTensor<T>> gradients;
  for (const auto& name : adapters)
    for (const auto& [key, tensor] : model.at(name).tensors()) {
      if (!tensor.parameter) continue;
      auto g = tensor.parameter.grad() ? tensor.parameter.grad()
                                       : BasicTensor<T>::zeros(tensor.parameter.shape());
      gradients[adapters.size() > 1 ? name + "/" + key : key] = g;
      gradients[name + "/" + key] = g;
    }
  return gradients;
}

/// The size of the largest element.
inline double size_of(const std::vector<double>& values) {
  double size = 0;
  for (const double v : values) size = std::max(size, std::abs(v));
  return size;
}
/// Keys of gradients in a file that are zero in exact arithmetic, as the biases of keys under a
/// softmax are, which need not be told: beside the largest they are what single precision leaves.
inline std::set<std::string> zero_gradients(const SafetensorsFile& file,
                                            const std::string& prefix) {
  std::map<std::string, double> sizes;
  double largest = 0;
  for (const auto& view : file.tensors())
    if (view.name.starts_with(prefix))
      largest = std::max(largest,
                         sizes[view.name.substr(prefix.size())] = size_of(graft::io::to_f64(view)));
  std::set<std::string> keys;
  for (const auto& [key, size] : sizes)
    if (size < 1e-7 * largest) keys.insert(key);
  return keys;
}

/// The keys that a case lists as `trainable` are those of the trained tensors to which the pass
/// that was compared gave gradients, each by one of its names.
template <class T>
void check_trainable(Checker& check, const Case& c, const graft::AdapterSet<T>& set) {
  if (!c.json.contains("trainable")) return;
  std::set<std::string> listed;
  for (const auto& key : c.json.at("trainable")) listed.insert(key.get<std::string>());
  const auto tensors = set.tensors();
  for (const auto& key : listed) {
    const auto it = std::find_if(tensors.begin(), tensors.end(),
                                 [&](const auto& entry) { return entry.key == key; });
    check.require(it != tensors.end() && it->tensor.parameter && it->tensor.parameter.trainable(),
                  concat(key, " is not trained"));
  }
  for (const auto& parameter : set.parameters())
    check.require(
        !parameter.grad() || std::any_of(tensors.begin(), tensors.end(),
                                         [&](const auto& entry) {
                                           return entry.tensor.parameter == parameter &&
                                                  listed.contains(entry.key);
                                         }),
        concat(std::find_if(tensors.begin(), tensors.end(),
                            [&](const auto& entry) { return entry.tensor.parameter == parameter; })
                   ->key,
               " is trained, and not in the case"));
}

/// Compares every tensor "<prefix><key>" of the file with a gradient. Gradients that are zero in
/// exact arithmetic (`vanishing`) are compared with the size of the others.
template <class T>
void compare_gradients(Checker& check, const std::map<std::string, BasicTensor<T>>& gradients,
                       const SafetensorsFile& file, const std::string& prefix,
                       const std::vector<std::string>& vanishing = {}) {
  double largest = 0;
  for (const auto& view : file.tensors())
    if (view.name.starts_with(prefix))
      largest = std::max(largest, size_of(graft::io::to_f64(view)));
  const auto zero = zero_gradients(file, prefix);
  for (const auto& view : file.tensors()) {
    if (!view.name.starts_with(prefix)) continue;
    const std::string key = view.name.substr(prefix.size());
    auto it = gradients.find(key);
    // PEFT stores biases of modules that are trained whole under two names, those of layers inside
    // with the adapter's name.
    static constexpr std::string_view kWhole = ".modules_to_save.";
    if (const auto at = key.find(kWhole); it == gradients.end() && at != key.npos) {
      const auto rest = key.substr(at + kWhole.size());
      for (const auto& name : {rest, rest.substr(rest.find('.') + 1)})
        if (it == gradients.end()) it = gradients.find(key.substr(0, at + 1) + name);
    }
    const auto expected = graft::io::to_f64(view);
    if (it == gradients.end())
      check.fail(view.name, concat(view.name, " has no parameter"));
    else if (zero.contains(key) ||
             std::find(vanishing.begin(), vanishing.end(), key) != vanishing.end())
      check.small(view.name, values_of(it->second), largest);
    else
      check.compare(view.name, values_of(it->second), expected);
  }
}

inline std::vector<std::string> vanishing_gradients(const Json& json) {
  std::vector<std::string> keys;
  for (const char* name : {"zero_gradients", "vanishing_gradients"}) {
    Json list = json.value(name, Json());
    if (list.is_object()) list = list.value("tensors", Json());
    if (!list.is_array()) continue;
    for (const auto& key : list)
      if (key.is_string()) {
        const auto text = key.get<std::string>();
        keys.push_back(text.starts_with("grad.") ? text.substr(5) : text);
      }
  }
  return keys;
}

/// Forward and backward; compares y, dx and every gradient of the file.
template <class T>
void check_gradients(Checker& check, const Toy<T>& toy, graft::BasicAdapterModel<T>& model,
                     const SafetensorsFile& file, const Inputs<T>& in, bool training,
                     const std::vector<std::string>& adapters, const Json& json,
                     std::shared_ptr<const void> context = nullptr) {
  graft::BasicTape<T> tape({.training = training});
  tape.set_context(std::move(context));
  std::vector<BasicVar<T>> leaves;
  const auto outputs = toy(tape, in, &leaves);
  for (std::size_t k = 0; k < outputs.size(); ++k)
    if (const auto* view = file.find("y" + in.suffixes[k]))
      check.compare("y" + in.suffixes[k], values_of(outputs[k].value()), graft::io::to_f64(*view));
  if (!in.dy[0]) return;
  for (const auto& name : adapters)
    for (const auto& p : model.at(name).parameters()) p.zero_grad();
  BasicVar<T> objective;
  if (outputs.size() > 1) {
    for (std::size_t k = 0; k < outputs.size(); ++k) {
      const auto term = sum(mul(outputs[k], tape.constant(in.dy[k])));
      objective = objective ? add(objective, term) : term;
    }
  }
  if (!outputs[0].requires_grad())  // no id of the batch is trained: gradients are zero
    return compare_gradients(check, gradients_of(model, adapters), file, "grad.",
                             vanishing_gradients(json));
  if (objective)
    tape.backward(objective);
  else
    tape.backward(outputs[0], in.dy[0]);
  for (std::size_t k = 0; k < in.suffixes.size(); ++k) {
    const auto* view = file.find("dx" + in.suffixes[k]);
    if (view == nullptr) continue;
    const auto dx = k < leaves.size() ? leaves[k].grad() : BasicTensor<T>{};
    check.compare(view->name, dx ? values_of(dx) : std::vector<double>(), graft::io::to_f64(*view));
  }
  compare_gradients(check, gradients_of(model, adapters), file, "grad.", vanishing_gradients(json));
}

/// Gives tensors of the adapter that its files lack the values of the case, "extra.<path>.<name>":
/// singular vectors, whose signs are those of whoever computed them.
template <class T>
void set_unsaved(const graft::BasicAdapterModel<T>& model, const SafetensorsFile& file) {
  bool any = false;
  for (const auto& [key, tensor] : model.at("default").tensors()) {
    static const std::string prefix = "base_model.model.";
    if (tensor.saved || !tensor.parameter) continue;
    // Those of the whole model keep "base_model.".
    const std::string name = "extra." + (key.starts_with(prefix) ? key.substr(prefix.size()) : key);
    if (file.find(name) == nullptr) continue;
    tensor.parameter.assign(tensor_of<T>(file, name));
    any = true;
  }
  if (!any) return;
  for (const auto& placed : model.at("default").parts()) placed.part->after_load();
}

/// Saved and loaded again, the adapter gives the same bits and has the same configuration.
template <class T>
void check_round_trip(Checker& check, Toy<T>& toy, graft::BasicAdapterModel<T>& model,
                      const SafetensorsFile& file, const Inputs<T>& in, bool training,
                      std::shared_ptr<const void> context = nullptr,
                      const std::function<void()>& loaded = {}) {
  const ScratchFolder scratch;
  const auto before = forward(toy, in, training, context);
  model.save("default", scratch.path);
  const auto config = model.at("default").config();
  model.remove("default");
  model.load("default", scratch.path);
  set_unsaved(model, file);
  if (loaded) loaded();
  const auto after = forward(toy, in, training, context);
  check.require(before == after, "saved and loaded again, the output has other bits");
  const auto again = model.at("default").config();
  for (const auto& [key, value] : config)
    if (key != "inference_mode" && (!again.contains(key) || !(again.at(key) == value)))
      check.fail("config", concat("config field ", key, " changed"));
}

/// "fc1.merged_weight", "merged_bias" or "merged.fc1.weight" as the name of the frozen tensor that
/// it replaces; empty for others.
inline std::string merged_name(const std::string& name) {
  if (name.starts_with("merged.")) return name.substr(7);
  const auto dot = name.rfind('.');
  const std::size_t start = dot == std::string::npos ? 0 : dot + 1;
  if (name.compare(start, 7, "merged_") != 0) return "";
  return name.substr(0, start) + name.substr(start + 7);
}

/// True if the frozen module with the merged tensors of a file gives the outputs of the file. PEFT
/// merges several rotations in another order than it runs them.
template <class T>
bool merged_tensors_hold(const Case& c, const SafetensorsFile& file, const Inputs<T>& in) {
  Toy<T> toy(c.json.value("module", Json()), file, single_target(c.folder));
  for (const auto& view : file.tensors())
    if (const std::string name = merged_name(view.name); !name.empty())
      if (!toy.set_frozen(name, tensor_of<T>(file, view.name))) return true;
  Checker check(1e-3);
  check_outputs(check, toy, in, file, "y");
  return check.passing();
}

template <class T>
void check_merge(Checker& check, const Case& c, Toy<T>& toy, graft::BasicAdapterModel<T>& model,
                 const SafetensorsFile& file, const Inputs<T>& in) {
  bool any = false;
  for (const auto& view : file.tensors()) any = any || !merged_name(view.name).empty();
  const Json merge = c.json.value("merge", Json::object());
  if (!any || (merge.is_object() && !merge.value("supported", true))) return;
  // A merge that changes the output by its definition is compared with the tensors of the case.
  const bool exact = !merge.is_object() || merge.value("exact", true);
  const bool hold = !exact || merged_tensors_hold(c, file, in);
  if (!hold) check.note("the merged tensors of the case give another y: not compared");
  const auto unmerged = forward(toy, in);
  model.merge({.dequantize = true});
  const double tolerance = std::max(check.tolerance(), 1e-5);
  for (const auto& view : file.tensors()) {
    const std::string name = merged_name(view.name);
    if (name.empty() || !hold) continue;
    const auto found = toy.frozen(name);
    if (found)
      check.compare(view.name, values_of(found), graft::io::to_f64(view), tolerance);
    else
      check.note(concat(view.name, " not compared"));
  }
  if (exact) check.compare("merged y", forward(toy, in), unmerged, tolerance);
  model.unmerge();
  check.require(forward(toy, in) == unmerged, "unmerged, the output has other bits");
}

/// Inits that move a part of the weight into the adapter: the module with the rest.
template <class T>
void rewrite_weights(Toy<T>& toy, const SafetensorsFile& file) {
  for (const auto& view : file.tensors()) {
    std::string name = view.name;
    const auto at = name.find("rewritten_");
    if (at == std::string::npos || (at > 0 && name[at - 1] != '.')) continue;
    name.erase(at, 10);
    toy.set_frozen(name, tensor_of<T>(file, view.name));
  }
}

/// A case of a method that is not there, or that asks for an option which the method does not know,
/// is no failure. @throws ValueError that names the methods, Unsupported
template <class T>
void check_known(const Case& c) {
  const auto config = graft::read_config_file(c.folder / "adapter_config.json");
  const auto type = config.find("peft_type");
  const auto* name = type == config.end() ? nullptr : type->second.template get_if<std::string>();
  if (name == nullptr) throw Unsupported{"no peft_type"};
  const auto& entry = methods<T>().at(*name);
  if (!c.json.contains("card")) return;  // PEFT writes fields that do not concern a method
  for (const auto& [field, value] : config) {
    // Fields of no method, and those that defaults leave out.
    static const std::vector<std::string> others = {
        "peft_type",         "task_type",     "auto_mapping",
        "peft_version",      "revision",      "inference_mode",
        "megatron_config",   "megatron_core", "base_model_name_or_path",
        "base_quantisation", "cayley_sign"};
    if (!entry.defaults.contains(field) && !value.is_null() &&
        std::find(others.begin(), others.end(), field) == others.end())
      throw Unsupported{concat(*name, " without ", field)};
  }
}

/// Compares an auxiliary loss with the sum of all "aux.<name>", and its gradients with
/// "grad_aux.<key>", or with the sum over the names of "aux_grad.<name>.<key>".
template <class T>
void check_auxiliary(Checker& check, graft::BasicAdapterModel<T>& model,
                     const SafetensorsFile& file,
                     const std::function<BasicVar<T>(graft::BasicTape<T>&)>& loss) {
  double expected = 0;
  std::vector<std::string> names;
  for (const auto& view : file.tensors())
    if (view.name.starts_with("aux.")) {
      names.push_back(view.name.substr(4));
      expected += graft::io::to_f64(view).at(0);
    }
  if (names.empty()) return;
  for (const auto& p : model.at("default").parameters()) p.zero_grad();
  graft::BasicTape<T> tape;
  const auto found = loss(tape);
  if (!found) return check.fail("aux", "the adapter has no auxiliary loss");
  check.compare("aux", values_of(found.value()), std::vector<double>{expected});
  tape.backward(found);
  const auto gradients = gradients_of(model, {"default"});
  compare_gradients(check, gradients, file, "grad_aux.");
  std::map<std::string, std::vector<double>> sums;
  for (const auto& view : file.tensors())
    for (const auto& name : names)
      if (const std::string prefix = "aux_grad." + name + "."; view.name.starts_with(prefix)) {
        const auto values = graft::io::to_f64(view);
        auto& sum = sums[view.name.substr(prefix.size())];
        sum.resize(values.size(), 0);
        for (std::size_t i = 0; i < values.size(); ++i) sum[i] += values[i];
      }
  for (const auto& [key, sum] : sums) {
    const auto it = gradients.find(key);
    if (it == gradients.end())
      check.fail(key, concat("aux_grad of ", key, " has no parameter"));
    else
      check.compare("aux_grad." + key, values_of(it->second), sum);
  }
}

/// What a case needs beside the common run: something before the first forward pass and after the
/// gradients. A runner that has it looks after inputs called "in." and auxiliary losses.
template <class T>
struct LayerSteps {
  std::function<void(graft::BasicAdapterModel<T>&, const SafetensorsFile&)> before, after;
  /// Told the adapters once they are loaded; it may give them what training would draw.
  std::function<void(graft::BasicAdapterModel<T>&)> prepare;
  bool training = false;  ///< run as in training whatever the case says
};

/// A layer case in one precision; in double, y, dx and gradients of case_f64.safetensors.
template <class T>
void run_layer(Checker& check, const Case& c, const LayerSteps<T>& steps = {}) {
  const auto file = tensors_of(c);
  // An unknown method is told before anything about the module.
  check_known<T>(c);
  Toy<T> toy(c.json.value("module", Json()), file, single_target(c.folder));
  const auto in = toy.inputs(file);
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = in.x[0] ? in.x[0].dim(0) : in.ids_shape[0];
  context->ids = in.ids;
  if (const auto* tasks = file.find("task_ids")) context->task_ids = graft::io::to_i64(*tasks);
  for (const auto length : ids_of(file, "prompt_lengths"))
    context->prompt_lengths.push_back(length);
  for (const auto& view : file.tensors())
    if (view.name.starts_with("in.") && !steps.before && !steps.after)
      throw Unsupported{concat("input ", view.name)};
  if (std::is_same_v<T, float>) check_outputs(check, toy, in, file, "y_base");
  // Nyström methods take what they subtract from the original weight when they are loaded.
  const std::string type = peft_type_of(c);
  if (type != "NLORA" && type != "INT_TUNE") rewrite_weights(toy, file);
  graft::BasicAdapterModel<T> model(toy.sites(), methods<T>());
  model.load("default", c.folder);
  set_unsaved(model, file);
  if (steps.before) steps.before(model, file);
  if (steps.prepare) steps.prepare(model);
  const bool training = steps.training || c.json.value("mode", "eval") == "train";
  if constexpr (std::is_same_v<T, double>) {
    const auto results = SafetensorsFile::open(c.folder / "case_f64.safetensors");
    check_gradients(check, toy, model, results, in, training, {"default"}, c.json, context);
    return;
  }
  check_gradients(check, toy, model, file, in, training, {"default"}, c.json, context);
  check_trainable(check, c, model.at("default"));
  if (steps.after)
    steps.after(model, file);
  else if (!steps.before)
    check_auxiliary<T>(check, model, file, [&](auto& tape) { return model.auxiliary_loss(tape); });
  check_round_trip(check, toy, model, file, in, training && !steps.prepare, context, [&] {
    if (steps.before && !steps.after) steps.before(model, file);
  });
  check_merge(check, c, toy, model, file, in);
}

}  // namespace conformance
