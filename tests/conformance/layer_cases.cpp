// Cases of one small module with one adapter or several.
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::AdapterModel;
using graft::Tensor;

/// Every occurrence of a text taken out.
std::string without(std::string text, const std::string& part) {
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part))
    text.erase(at, part.size());
  return text;
}

/// A mixed model of PEFT trains its frozen layers too; they are beside the tensors of an adapter,
/// under names that lost everything that looks like the adapter's name.
void set_trained_base(Toy<float>& toy, const SafetensorsFile& file, const std::string& adapter) {
  for (const auto& path : toy.names())
    for (const char* tensor : {"weight", "bias"})
      for (std::string nested = ".base_layer"; nested.size() < 64; nested += ".base_layer") {
        const std::string key =
            without(concat("base_model.model.", path, nested, ".", tensor), "." + adapter);
        if (file.find(key) != nullptr)
          toy.set_frozen(concat(path, ".", tensor), tensor_of<float>(file, key));
      }
}

/// The adapters of a case side by side in folders, or those of a mixed model: configurations in the
/// case, tensors under PEFT's names of nested layers.
std::vector<std::string> load_adapters(const Case& c, Toy<float>& toy, AdapterModel& model,
                                       bool& mixed) {
  std::vector<std::string> names;
  mixed = false;
  if (!c.json.contains("adapters")) {
    model.load("default", c.folder);
    return {"default"};
  }
  for (const auto& name : c.json.at("adapters")) names.push_back(name.get<std::string>());
  for (const auto& name : names) {
    if (fs::exists(c.folder / name / "adapter_config.json")) {
      model.load(name, c.folder / name);
      continue;
    }
    const auto config = c.json.value("config", Json::object());
    if (!config.contains(name)) throw Unsupported{concat("no adapter ", name)};
    mixed = true;
    const auto value = graft::config_value(config.at(name));
    graft::TorchGenerator generator(0);
    auto& set = model.add(name, *value.get_if<graft::ConfigValue::Map>(), generator);
    const auto file = SafetensorsFile::open(c.folder / name / "adapter_model.safetensors");
    for (const auto& [key, tensor] : set.tensors()) {
      const graft::io::TensorView* found = nullptr;
      for (const auto& view : file.tensors())
        if (without(view.name, ".base_layer") == key) found = &view;
      if (found == nullptr && tensor.index) continue;  // positions that the seed gives
      if (found == nullptr) throw graft::IoError(concat("adapter ", name, ": no tensor ", key));
      tensor.parameter.assign(Tensor::from(graft::io::to_f32(*found), tensor.parameter.shape()));
    }
    for (const auto& placed : set.parts()) placed.part->after_load();
    set_trained_base(toy, file, name);
  }
  return names;
}

/// "a/base_model.model.proj.base_layer.oft_R.a.weight" as graft names it; empty for tensors of the
/// frozen layer.
std::string plain_key(std::string key) {
  const auto slash = key.find('/');
  const std::string name = key.substr(0, slash), infix = "." + name + ".";
  if (key.ends_with(".base_layer.weight") || key.ends_with(".base_layer.bias")) return "";
  if (key.ends_with(".ranknum." + name)) return "";  // a number that PEFT keeps as a parameter
  key = without(key, ".base_layer");
  if (key.ends_with("." + name)) key.resize(key.size() - name.size() - 1);
  if (const auto at = key.find(infix, slash); at != std::string::npos)
    key.erase(at, infix.size() - 1);
  return key;
}

void check_mixed_gradients(Checker& check, const Toy<float>& toy, AdapterModel& model,
                           const SafetensorsFile& file, const Inputs<float>& in,
                           const std::vector<std::string>& names) {
  graft::Tape tape;
  std::vector<graft::Var> leaves;
  const auto y = toy(tape, in, &leaves)[0];
  check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
  tape.backward(y, in.dy[0]);
  check.compare("dx", values_of(leaves[0].grad()), graft::io::to_f64(file.at("dx")));
  const auto gradients = gradients_of(model, names);
  for (const auto& view : file.tensors()) {
    if (!view.name.starts_with("grad.")) continue;
    const std::string key = plain_key(view.name.substr(5));
    if (key.empty()) continue;
    const auto it = gradients.find(key);
    if (it == gradients.end())
      check.fail(view.name, concat(view.name, " has no parameter"));
    else
      check.compare(view.name, values_of(it->second), graft::io::to_f64(view));
  }
}

/// Random values are compared by their distribution; constants must be equal.
void check_distribution(Checker& check, const std::string& key, const Tensor& values,
                        const Json& statistics) {
  const auto v = values_of(values);
  double mean = 0, square = 0;
  for (double x : v) {
    mean += x;
    square += x * x;
  }
  const double n = static_cast<double>(v.size());
  mean /= n;
  const double deviation = std::sqrt(std::max(0.0, square / n - mean * mean));
  const double expected = statistics.at("std").get<double>(),
               expected_mean = statistics.at("mean").get<double>();
  if (expected < 1e-6) {
    const double error = std::abs(mean - expected_mean) + deviation;
    check.add(key, error, error, 1e-4);
    return;
  }
  const double spread = expected * 6 / std::sqrt(n);
  if (std::abs(mean - expected_mean) > 1.5 * spread + 1e-6 || deviation < expected / 1.6 ||
      deviation > expected * 1.6)
    check.fail(key, concat(key, ": mean ", mean, " and deviation ", deviation, ", PEFT ",
                           expected_mean, " and ", expected));
}

}  // namespace

Result run_layer_case(const Case& c) {
  Checker check(tolerance_of(c.json));
  run_layer<float>(check, c);
  if (settings().f64 && check.passing() && fs::exists(c.folder / "case_f64.safetensors")) {
    Checker exact(1e-9);
    run_layer_in_double(exact, c);
    check.merge(exact.result(), "f64 ");
  }
  return check.result();
}

Result run_init_case(const Case& c) {
  const auto file = tensors_of(c);
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  Checker check(1e-5);
  Toy<float> toy(c.json.value("module", Json()), file, single_target(c.folder));
  const auto in = toy.inputs(file);
  const auto before = forward(toy, in);
  AdapterModel model(toy.sites(), methods<float>());
  graft::TorchGenerator generator(c.json.value("seed", std::uint64_t{0}));
  auto& set =
      model.add("default", graft::read_config_file(c.folder / "adapter_config.json"), generator);
  if (c.json.value("identity_at_init", false))
    check.compare("identity", forward(toy, in), before, 1e-5);
  else
    check.require(c.json.value("relative_change_of_output", 0.0) > 0, "case without a promise");
  const Json statistics = c.json.value("statistics", Json::object());
  std::vector<std::string> seen;
  std::size_t equal = 0, close = 0, random = 0;
  for (const auto& [key, tensor] : set.tensors()) {
    seen.push_back(key);
    if (!tensor.saved) continue;
    const auto* view = saved.find(key);
    if (view == nullptr) {
      check.fail(key, concat("tensor ", key, " is not in PEFT's file"));
      continue;
    }
    if (tensor.index) {
      check.require(graft::io::to_i64(*view) == tensor.index->values,
                    concat("other positions in ", key));
      continue;
    }
    if (!statistics.contains(key)) continue;
    check_distribution(check, key, tensor.parameter.value(), statistics.at(key));
    if (statistics.at(key).value("std", 0.0) == 0) continue;
    const auto expected = graft::io::to_f32(*view);
    const auto found = tensor.parameter.value();
    ++random;
    if (std::equal(expected.begin(), expected.end(), found.begin(), found.end())) {
      ++equal;
      continue;
    }
    Checker values(1e-5);
    values.compare(key, found, expected);
    if (values.passing()) ++close;
  }
  for (const auto& [key, tensor] : set.file_tensors()) seen.push_back(key);
  for (const auto& view : saved.tensors())
    if (std::find(seen.begin(), seen.end(), view.name) == seen.end() &&
        !view.name.ends_with("base_layer.weight"))
      check.fail(view.name, concat("tensor ", view.name, " is missing"));
  if (random > 0)
    check.note(concat("of ", random, " random tensors ", equal, " have torch's bits, ", close,
                      " more its values to 1e-5"));
  return check.result();
}

Result run_multi_case(const Case& c) {
  const auto file = tensors_of(c);
  if (fs::exists(c.folder / "converted") || fs::exists(c.folder / "lora"))
    return run_conversion_case(c);
  if (!c.json.contains("adapters") && !fs::exists(c.folder / "adapter_config.json"))
    throw Unsupported{c.json.value("covers", "")};
  if (c.json.contains("combination_type")) return run_combination_case(c);
  Checker check(tolerance_of(c.json));
  Toy<float> toy(c.json.value("module", Json()), file, single_target(c.folder));
  const auto in = toy.inputs(file);
  check_outputs(check, toy, in, file, "y_base");
  rewrite_weights(toy, file);
  AdapterModel model(toy.sites(), methods<float>());
  bool mixed = false;
  const auto names = load_adapters(c, toy, model, mixed);
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = in.x[0] ? in.x[0].dim(0) : in.ids_shape[0];
  context->ids = in.ids;
  if (const auto* tasks = file.find("task_ids")) context->task_ids = graft::io::to_i64(*tasks);
  if (c.json.contains("row_adapters"))
    for (const auto& name : c.json.at("row_adapters"))
      context->row_adapters.push_back(name.get<std::string>());
  model.activate(names);
  if (mixed)
    check_mixed_gradients(check, toy, model, file, in, names);
  else
    check_gradients(check, toy, model, file, in, c.json.value("mode", "eval") == "train", names,
                    c.json, context);
  if (!c.json.contains("row_adapters") && !file.find("task_ids")) {
    if (names.size() == 1) check_round_trip(check, toy, model, file, in, false);
    check_merge(check, c, toy, model, file, in);
  }
  return check.result();
}

}  // namespace conformance
