// Cases of one small module with one adapter or several.
#include <filesystem>

#include "registry.hpp"
#include "toy.hpp"

namespace conformance {
namespace {

namespace fs = std::filesystem;
using graft::AdapterModel;
using graft::Tape;
using graft::Tensor;
using graft::Var;

/// A folder that is removed at the end.
struct ScratchFolder {
  fs::path path = fs::temp_directory_path() /
                  concat("graft-conformance-", reinterpret_cast<std::uintptr_t>(this));
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

struct Inputs {
  Tensor x, dy;
  std::vector<std::int32_t> ids;
  Shape ids_shape;
};

Inputs inputs_of(const SafetensorsFile& file) {
  Inputs in;
  in.x = tensor_of<float>(file, "x");
  in.dy = tensor_of<float>(file, "dy");
  in.ids = ids_of(file, "ids");
  if (const auto* view = file.find("ids"))
    in.ids_shape = Shape(view->shape.begin(), view->shape.end());
  return in;
}

Tensor forward(const Toy<float>& toy, const Inputs& in, bool training = false) {
  Tape tape({.gradients = false, .training = training});
  return toy(tape, in.x, in.ids, in.ids_shape, nullptr).value();
}

/// Forward and backward; compares y, dx and every gradient of the file.
void check_gradients(Checker& check, const Toy<float>& toy, AdapterModel& model,
                     const SafetensorsFile& file, const Inputs& in, bool training,
                     const std::vector<std::string>& adapters,
                     std::shared_ptr<const void> context = nullptr) {
  Tape tape({.training = training});
  tape.set_context(std::move(context));
  Var x;
  const Var y = toy(tape, in.x, in.ids, in.ids_shape, &x);
  if (file.find("y") != nullptr)
    check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
  if (!in.dy) return;
  for (const auto& name : adapters)
    for (const auto& p : model.at(name).parameters()) p.zero_grad();
  if (!y.requires_grad()) {
    check.fail("y", "nothing is trained");
    return;
  }
  tape.backward(y, in.dy);
  if (file.find("dx") != nullptr) {
    const auto dx = x ? x.grad() : Tensor{};
    check.compare("dx", dx ? values_of(dx) : std::vector<double>(),
                  graft::io::to_f64(file.at("dx")));
  }
  std::map<std::string, Tensor> gradients;
  for (const auto& name : adapters)
    for (const auto& [key, tensor] : model.at(name).tensors()) {
      if (!tensor.parameter) continue;
      auto g = tensor.parameter.grad() ? tensor.parameter.grad()
                                       : Tensor::zeros(tensor.parameter.shape());
      gradients[adapters.size() > 1 ? name + "/" + key : key] = g;
      gradients[name + "/" + key] = g;
    }
  for (const auto& view : file.tensors()) {
    if (view.name.rfind("grad.", 0) != 0) continue;
    const auto it = gradients.find(view.name.substr(5));
    if (it == gradients.end())
      check.fail(view.name, concat(view.name, " has no parameter"));
    else
      check.compare(view.name, values_of(it->second), graft::io::to_f64(view));
  }
}

/// Saved and loaded again, the adapter gives the same bits.
void check_round_trip(Checker& check, Toy<float>& toy, AdapterModel& model, const Inputs& in,
                      bool training) {
  const ScratchFolder scratch;
  const Tensor before = forward(toy, in, training);
  model.save("default", scratch.path);
  const auto config = model.at("default").config();
  model.remove("default");
  model.load("default", scratch.path);
  const Tensor after = forward(toy, in, training);
  check.require(std::equal(before.begin(), before.end(), after.begin(), after.end()),
                "saved and loaded again, the output has other bits");
  auto again = model.at("default").config();
  again["inference_mode"] =
      config.contains("inference_mode") ? config.at("inference_mode") : again["inference_mode"];
  for (const auto& [key, value] : config)
    if (key != "inference_mode" && !(again[key] == value))
      check.fail("config", concat("config field ", key, " changed"));
}

void check_merge(Checker& check, Toy<float>& toy, AdapterModel& model, const SafetensorsFile& file,
                 const Inputs& in, const Json& json) {
  bool any = false;
  for (const auto& view : file.tensors())
    any = any || view.name.find("merged_") != std::string::npos;
  if (!any || !json.value("merge", Json::object()).value("supported", true)) return;
  const Tensor unmerged = forward(toy, in);
  model.merge({.dequantize = true});
  for (const auto& path : toy.paths()) {
    for (const std::string& name :
         {toy.single() ? std::string("merged_weight") : path + ".merged_weight"}) {
      const auto* view = file.find(name);
      if (view == nullptr) continue;
      const auto w = toy.file_weight(path);
      if (w)
        check.compare(name, values_of(w), graft::io::to_f64(*view),
                      std::max(check.tolerance(), 1e-5));
    }
  }
  const Tensor merged = forward(toy, in);
  check.compare("merged y", values_of(merged), values_of(unmerged),
                std::max(check.tolerance(), 1e-5));
  model.unmerge();
  const Tensor restored = forward(toy, in);
  check.require(std::equal(unmerged.begin(), unmerged.end(), restored.begin()),
                "unmerged, the output has other bits");
}

void rewrite_weights(Toy<float>& toy, const SafetensorsFile& file) {
  for (const auto& path : toy.paths()) {
    const auto w = tensor_of<float>(
        file, toy.single() ? std::string("rewritten_weight") : path + ".rewritten_weight");
    if (w) toy.set_weight(path, w);
    for (const auto& view : file.tensors())
      if (view.name == "rewritten_" + path || view.name == path + ".rewritten")
        toy.set_weight(path, tensor_of<float>(file, view.name));
  }
}

}  // namespace

Result run_layer_case(const Case& c) {
  const auto file = SafetensorsFile::open(c.folder / "case.safetensors");
  Checker check(tolerance_of(c.json));
  Toy<float> toy(c.json.at("module").get<std::string>(), file);
  const Inputs in = inputs_of(file);
  if (file.find("y_base") != nullptr)
    check.compare("y_base", values_of(forward(toy, in)), graft::io::to_f64(file.at("y_base")));
  rewrite_weights(toy, file);
  AdapterModel model(toy.sites(), methods());
  model.load("default", c.folder);
  const bool training = c.json.value("mode", "eval") == "train";
  check_gradients(check, toy, model, file, in, training, {"default"});
  check_round_trip(check, toy, model, in, training);
  check_merge(check, toy, model, file, in, c.json);
  return check.result();
}

Result run_init_case(const Case& c) {
  const auto file = SafetensorsFile::open(c.folder / "case.safetensors");
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  Checker check(1e-5);
  Toy<float> toy(c.json.at("module").get<std::string>(), file);
  const Inputs in = inputs_of(file);
  const Tensor before = forward(toy, in);
  AdapterModel model(toy.sites(), methods());
  graft::TorchGenerator generator(c.json.value("seed", std::uint64_t{0}));
  auto& set =
      model.add("default", graft::read_config_file(c.folder / "adapter_config.json"), generator);
  if (c.json.value("identity_at_init", false))
    check.compare("identity", values_of(forward(toy, in)), values_of(before), 1e-5);
  else
    check.require(c.json.value("relative_change_of_output", 0.0) > 0, "case without a promise");
  std::map<std::string, Tensor> values;
  for (const auto& [key, tensor] : set.tensors()) {
    if (!tensor.saved) continue;
    if (saved.find(key) == nullptr)
      check.fail(key, concat("tensor ", key, " is not in PEFT's file"));
    if (tensor.parameter) values[key] = tensor.parameter.value();
  }
  // Values are random: the same distribution is wanted, told apart by spread and range; constants
  // must be equal.
  const Json statistics = c.json.value("statistics", Json::object());
  for (const auto& [key, s] : statistics.items()) {
    const auto it = values.find(key);
    if (it == values.end()) {
      if (saved.find(key) != nullptr && !key.ends_with("base_layer.weight")) {
        bool index = false;
        for (const auto& [name, tensor] : set.tensors())
          index = index || (name == key && tensor.index);
        if (!index) check.fail(key, concat("tensor ", key, " is missing"));
      }
      continue;
    }
    const auto v = values_of(it->second);
    double mean = 0, square = 0, low = INFINITY, high = -INFINITY;
    for (double x : v) {
      mean += x;
      square += x * x;
      low = std::min(low, x);
      high = std::max(high, x);
    }
    const double n = static_cast<double>(v.size());
    mean /= n;
    const double deviation = std::sqrt(std::max(0.0, square / n - mean * mean));
    const double expected = s.at("std").get<double>(), expected_mean = s.at("mean").get<double>();
    if (expected == 0) {
      check.add(key, std::abs(mean - expected_mean) + deviation,
                std::abs(mean - expected_mean) + deviation, 1e-4);
      continue;
    }
    const double spread = expected * 6 / std::sqrt(n);
    if (std::abs(mean - expected_mean) > 1.5 * spread + 1e-6 || deviation < expected / 1.6 ||
        deviation > expected * 1.6)
      check.fail(key, concat(key, ": mean ", mean, " and deviation ", deviation, ", PEFT ",
                             expected_mean, " and ", expected));
  }
  return check.result();
}

Result run_multi_case(const Case& c) {
  const auto file_path = c.folder / "case.safetensors";
  const auto file = SafetensorsFile::open(file_path);
  if (c.json.value("kind", "multi") == "adalora") throw Unsupported{"allocator trace"};
  if (!c.json.contains("adapters") && !fs::exists(c.folder / "adapter_config.json"))
    throw Unsupported{c.json.value("covers", "")};
  if (c.json.contains("combination_type") || c.json.contains("weights"))
    throw Unsupported{"weighted combination"};
  Checker check(tolerance_of(c.json));
  Toy<float> toy(c.json.at("module").get<std::string>(), file);
  const Inputs in = inputs_of(file);
  if (file.find("y_base") != nullptr)
    check.compare("y_base", values_of(forward(toy, in)), graft::io::to_f64(file.at("y_base")));
  rewrite_weights(toy, file);
  AdapterModel model(toy.sites(), methods());
  std::vector<std::string> names;
  if (c.json.contains("adapters")) {
    for (const auto& name : c.json.at("adapters")) names.push_back(name.get<std::string>());
    for (const auto& name : names) {
      if (!fs::exists(c.folder / name / "adapter_config.json"))
        throw Unsupported{concat("no adapter ", name)};
      model.load(name, c.folder / name);
    }
    if (c.json.value("peft_api", "").find("create_arrow_model") != std::string::npos)
      throw Unsupported{"Arrow"};
  } else {
    names.push_back("default");
    model.load("default", c.folder);
  }
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = in.x ? in.x.dim(0) : in.ids_shape[0];
  context->ids = in.ids;
  if (const auto* tasks = file.find("task_ids")) context->task_ids = graft::io::to_i64(*tasks);
  if (c.json.contains("row_adapters")) {
    for (const auto& name : c.json.at("row_adapters"))
      context->row_adapters.push_back(name.get<std::string>());
    for (const auto& name : names) model.at(name);
  }
  model.activate(names);
  check_gradients(check, toy, model, file, in, c.json.value("mode", "eval") == "train", names,
                  context);
  if (!c.json.contains("row_adapters") && !file.find("task_ids")) {
    if (names.size() == 1) check_round_trip(check, toy, model, in, false);
    check_merge(check, toy, model, file, in, c.json);
  }
  return check.result();
}

}  // namespace conformance
