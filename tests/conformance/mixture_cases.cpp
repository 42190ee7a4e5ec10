// Layers that a module alone does not make: mixtures of adapters that the model has already,
// routers that are told what they look at, a base that is quantised in groups.
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/adapters/low_rank/qa_lora.hpp"
#include "graft/adapters/mixtures/poly.hpp"
#include "graft/adapters/mixtures/xlora.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::AdapterModel;
using graft::ConfigValue;
using graft::Tensor;

/// Output, dx and gradients of a module under its active adapters.
void compare(Checker& check, const Case& c, const Toy<float>& toy, AdapterModel& model,
             const SafetensorsFile& file, const std::vector<std::string>& adapters,
             std::shared_ptr<graft::ForwardContext> context = nullptr) {
  const auto in = toy.inputs(file);
  if (!context) context = std::make_shared<graft::ForwardContext>();
  context->batch = in.x[0].dim(0);
  const bool training = c.json.value("mode", "eval") == "train";
  check_gradients(check, toy, model, file, in, training, adapters, c.json, context);
}

/// Arrow over the adapters task_0, task_1, … with gks_0, … as general ones.
void run_arrow(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  Toy<float> toy(c.json.value("module", Json()), file, "");
  const auto in = toy.inputs(file);
  check_outputs(check, toy, in, file, "y_base");
  AdapterModel model(toy.sites(), methods<float>());
  ConfigValue::List tasks, general;
  ConfigValue targets;
  ConfigValue rank;
  for (const auto& entry : c.json.at("adapters")) {
    const auto name = entry.get<std::string>();
    const auto& config = model.load(name, c.folder / name).config();
    targets = config.at("target_modules");
    rank = config.at("r");
    (name.starts_with("gks_") ? general : tasks).emplace_back(name);
  }
  auto arrow = *graft::config_value(c.json.at("config")).get_if<ConfigValue::Map>();
  arrow["task_adapter_names"] = tasks;
  arrow["gks_adapter_names"] = general;
  graft::TorchGenerator generator(0);
  auto& set = model.add(
      "arrow_router",
      {{"peft_type", "LORA"}, {"r", rank}, {"target_modules", targets}, {"arrow_config", arrow}},
      generator);
  // PEFT stops after 15 power iterations from a start that the case does not tell: its prototypes
  // are taken over, after a look at how much its experts amplify them.
  if (file.find("prototypes") != nullptr) {
    const auto given = tensor_of<float>(file, "prototypes");
    for (const auto& placed : set.parts()) {
      auto* router = graft::method_of<graft::Arrow>(placed.part.get());
      if (router == nullptr) continue;
      for (Index e = 0; e < given.rows(); ++e) {
        const double ours = router->gain(e, router->prototypes()), theirs = router->gain(e, given);
        check.require(theirs <= ours * (1 + 1e-5) && theirs > 0.9 * ours,
                      concat("prototype ", e, " of a gain of ", ours, ", PEFT ", theirs));
      }
      router->set_prototypes(given);
    }
  }
  compare(check, c, toy, model, file, {"arrow_router"});
}

/// The experts that a file stacks as [experts, …] below a path, as terms with the scaling of the
/// configuration.
std::vector<graft::LowRankTerm<float>> stacked_experts(const Case& c, const std::string& path) {
  const auto file = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const auto a = tensor_of<float>(file, "base_model.model." + path + ".lora_A"),
             b = tensor_of<float>(file, "base_model.model." + path + ".lora_B");
  const Json& config = c.json.at("config");
  const double scaling = config.at("lora_alpha").get<double>() / config.at("r").get<double>();
  std::vector<graft::LowRankTerm<float>> list;
  for (Index e = 0; e < a.dim(0); ++e) {
    const auto part = [&](const Tensor& t) {
      auto one = Tensor::empty({t.dim(1), t.dim(2)});
      std::copy_n(t.data() + e * one.size(), one.size(), one.data());
      return graft::Parameter(one);
    };
    list.push_back({part(a), part(b), static_cast<float>(scaling)});
  }
  return list;
}

/// y, dx and gradients of one layer with a part, outside of any model.
void compare_layer(Checker& check, const SafetensorsFile& file, graft::LinearPart<float>& part,
                   const std::function<void(graft::Tape&)>& prepare,
                   const std::map<std::string, graft::Parameter>& trained,
                   const graft::DenseLinear* layer = nullptr) {
  const graft::AnyLinear base{
      layer != nullptr
          ? *layer
          : graft::DenseLinear(tensor_of<float>(file, "weight"), tensor_of<float>(file, "bias"))};
  graft::Tape tape;
  prepare(tape);
  const auto x = tape.leaf(tensor_of<float>(file, "x"));
  const auto y = part.apply(graft::BasicLinearView<float>(base, {}), x);
  check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
  tape.backward(y, tensor_of<float>(file, "dy"));
  check.compare("dx", values_of(x.grad()), graft::io::to_f64(file.at("dx")));
  for (const auto& [key, parameter] : trained)
    check.compare("grad." + key, values_of(parameter.grad()),
                  graft::io::to_f64(file.at("grad." + key)));
}

/// Arrow with given prototypes over stacked experts.
void run_stacked_arrow(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto path = single_target(c.folder);
  auto terms = stacked_experts(c, path);
  graft::LoRAConfig config;
  const auto map = graft::read_config_file(c.folder / "adapter_config.json");
  graft::ConfigReader reader(map);
  config.fields(reader);
  graft::LinearSiteInfo<float> site;
  site.path = path;
  site.in_features = terms[0].a.shape()[1];
  site.out_features = terms[0].b.shape()[0];
  graft::Arrow router(config, site, graft::StandaloneInit<float>(0).context());
  // General adapters come last; the prototypes say how many experts there are.
  const auto prototypes = tensor_of<float>(file, "in.prototypes");
  const auto experts = terms.begin() + prototypes.rows();
  const std::vector<graft::LowRankTerm<float>> general(experts, terms.end());
  terms.erase(experts, terms.end());
  router.set_experts(terms, general);
  auto found = router.prototypes().clone();
  for (Index e = 0; e < found.rows(); ++e) {
    const float* largest =
        std::max_element(found.data() + e * found.cols(), found.data() + (e + 1) * found.cols(),
                         [](float a, float b) { return std::abs(a) < std::abs(b); });
    if (*largest < 0)
      for (Index i = 0; i < found.cols(); ++i) found(e, i) = -found(e, i);
  }
  check.compare("prototypes", values_of(found), values_of(prototypes));
  auto part = graft::linear_part(router);
  compare_layer(check, file, *part, [](graft::Tape&) {}, {});
}

/// X-LoRA at one layer with given hidden states of the first pass.
void run_stacked_xlora(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const auto path = single_target(c.folder);
  graft::XLoRAConfig config;
  config.dropout = 0;
  const auto map = graft::read_config_file(c.folder / "adapter_config.json");
  graft::ConfigReader reader(map);
  config.fields(reader);
  if (config.depth != 1) throw Unsupported{"a classifier of several layers"};
  std::vector<graft::XLoRALinear<float>::Expert> experts;
  for (const auto& term : stacked_experts(c, path))
    experts.emplace_back(std::to_string(experts.size()), term);
  const auto hidden = tensor_of<float>(file, "in.hidden");
  const auto scalings = std::make_shared<graft::XLoRAScalings<float>>();
  const auto count = static_cast<Index>(experts.size());
  graft::StandaloneInit<float> init(0);
  graft::XLoRAClassifier<float> classifier(config, count, 1, hidden.cols(), init.context(),
                                           scalings);
  std::map<std::string, graft::Parameter> trained;
  for (const auto& tensor : classifier.tensors()) {
    const std::string key =
        concat("base_model.model.classifier", tensor.name.ends_with("bias") ? ".bias" : ".weight");
    tensor.parameter.assign(tensor_of<float>(saved, key));
    trained[key] = tensor.parameter;
  }
  graft::XLoRALinear<float> part(config, experts, 0, scalings);
  compare_layer(
      check, file, part,
      [&](graft::Tape& tape) { classifier.before(tape, [&](graft::Tape&) { return hidden; }); },
      trained);
}

/// Poly with the tasks of the rows and, in training, the uniform numbers that it draws.
void run_poly(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto path = single_target(c.folder);
  graft::PolyConfig config;
  const auto map = graft::read_config_file(c.folder / "adapter_config.json");
  graft::ConfigReader reader(map);
  config.fields(reader);
  Toy<float> toy(c.json.value("module", Json()), file, path);
  AdapterModel model(toy.sites(), methods<float>());
  auto& set = model.load("default", c.folder);
  auto context = std::make_shared<graft::ForwardContext>();
  context->task_ids = graft::io::to_i64(file.at("in.task_ids"));
  const auto uniform = tensor_of<float>(file, "in.uniform");
  for (const auto& placed : set.parts())
    if (auto* poly = graft::method_of<graft::Poly>(placed.part.get())) poly->set_uniform(uniform);
  const auto in = toy.inputs(file);
  context->batch = in.x[0].dim(0);
  check_gradients(check, toy, model, file, in, static_cast<bool>(uniform), {"default"}, c.json,
                  context);
}

/// What a new task starts from: the mean skill, the mean logits.
void run_poly_transfer(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto term =
      graft::mean_skill(tensor_of<float>(file, "in.A"), tensor_of<float>(file, "in.B"));
  check.compare("out.lora_A", values_of(term.a.value()), graft::io::to_f64(file.at("out.lora_A")));
  check.compare("out.lora_B", values_of(term.b.value()), graft::io::to_f64(file.at("out.lora_B")));
  check.compare("out.lora_scale", std::vector<float>{term.scaling},
                graft::io::to_f64(file.at("out.lora_scale")));
  graft::Tape tape({.gradients = false});
  const auto logits = graft::mean_axis(tape.constant(tensor_of<float>(file, "in.logits")), 0);
  check.compare("out.new_task_logits", values_of(logits.value()),
                graft::io::to_f64(file.at("out.new_task_logits")));
}

/// QA-LoRA on a base quantised in groups, ŵ = σ (q − z): the update goes into the
/// zeros z, with codes and scales as they are.
template <class Method>
void run_qalora(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const auto path = single_target(c.folder);
  const auto codes = graft::io::to_f64(file.at("codes"));
  const auto scales = tensor_of<float>(file, "scales"), zeros = tensor_of<float>(file, "zeros");
  typename Method::Config config;
  const auto map = graft::read_config_file(c.folder / "adapter_config.json");
  graft::ConfigReader reader(map);
  config.fields(reader);
  const Index g = config.qalora_group_size, out = scales.rows(), in = scales.cols() * g;
  auto w = Tensor::empty({out, in});
  for (Index o = 0; o < out; ++o)
    for (Index i = 0; i < in; ++i)
      w(o, i) = scales(o, i / g) *
                (static_cast<float>(codes[static_cast<std::size_t>(o * in + i)]) - zeros(o, i / g));
  graft::LinearSiteInfo<float> site;
  site.path = path;
  site.in_features = in;
  site.out_features = out;
  graft::StandaloneInit<float> init(0);
  const Method method(config, site, init.context());
  std::map<std::string, graft::Parameter> trained;
  for (const auto& tensor : method.tensors()) {
    const std::string key = concat("base_model.model.", path, ".", tensor.name);
    tensor.parameter.assign(tensor_of<float>(saved, key));
    trained[key] = tensor.parameter;
  }
  const graft::DenseLinear dense(w, tensor_of<float>(file, "bias"));
  auto part = graft::linear_part(method);
  compare_layer(
      check, file, *part, [](graft::Tape&) {}, trained, &dense);
  const auto merged = merge_linear(dense, method).dense_weight();
  check.compare("merged_weight", values_of(merged), graft::io::to_f64(file.at("merged_weight")));
  auto moved = zeros.clone();
  for (Index o = 0; o < out; ++o)
    for (Index k = 0; k < zeros.cols(); ++k)
      moved(o, k) -= (merged(o, k * g) - w(o, k * g)) / scales(o, k);
  check.compare("merged_zeros", values_of(moved), graft::io::to_f64(file.at("merged_zeros")));
}

const Handler peft_qalora({.kind = "layer", .peft_type = "LORA", .method = "QA-LoRA"},
                          run_qalora<graft::BasicLoRAQA<float>>);
const Handler qalora({.kind = "layer", .peft_type = "QA_LORA"}, run_qalora<graft::QALoRA>);
const Handler poly_transfer({.kind = "transform", .peft_type = "POLY"}, run_poly_transfer);
const Handler arrow({.kind = "multi", .name = "arrow"}, run_arrow);
const Handler stacked_arrow({.kind = "layer", .peft_type = "LORA", .method = "Arrow routing"},
                            run_stacked_arrow);
const Handler stacked_xlora({.kind = "layer", .peft_type = "XLORA"}, run_stacked_xlora);
const Handler poly({.kind = "layer", .peft_type = "POLY"}, run_poly);

}  // namespace
}  // namespace conformance
