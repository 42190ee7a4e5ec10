// Prompts: pruning, stages, proxies, and what runs outside of any model.
#include "graft/adapters/prompts/blackvip.hpp"
#include "graft/adapters/prompts/cones.hpp"
#include "graft/adapters/prompts/crosstune.hpp"
#include "graft/adapters/prompts/e2vpt.hpp"
#include "graft/adapters/prompts/gram.hpp"
#include "graft/adapters/prompts/pvp.hpp"
#include "graft/adapters/prompts/semantic_proxies.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/models/load.hpp"
#include "graft/models/vit.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/optim/spsa.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::AdapterModel;
using graft::Parameter;
using graft::Tape;
using graft::Tensor;
using graft::Transpose;
using graft::Var;
using graft::models::Batch;

/// Gives the tensors of a module the values that the case's checkpoint has for them.
template <class T>
void load_tensors(Checker& check, const Case& c,
                  const std::vector<graft::AdapterTensor<T>>& tensors) {
  const auto file = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  check.require(file.tensors().size() == tensors.size(), "the checkpoint has other tensors");
  for (const auto& t : tensors) {
    auto value = tensor_of<T>(file, "base_model.model." + t.name);
    check.require(value && value.shape() == t.parameter.shape(), t.name + " has another shape");
    if (value) t.parameter.assign(std::move(value));
  }
}
template <class T>
std::map<std::string, BasicTensor<T>> gradients(
    const std::vector<graft::AdapterTensor<T>>& tensors) {
  std::map<std::string, BasicTensor<T>> found;
  for (const auto& t : tensors)
    if (t.parameter.trainable()) found["base_model.model." + t.name] = t.parameter.grad();
  return found;
}
template <class T>
void compare_named(Checker& check, const SafetensorsFile& file, const std::string& name,
                   const BasicTensor<T>& found, double tolerance = -1) {
  check.compare(name, values_of(found), graft::io::to_f64(file.at(name)), tolerance);
}
std::vector<std::int64_t> labels_of(const SafetensorsFile& file, const std::string& name) {
  return graft::io::to_i64(file.at(name));
}

/// Logits, loss, gradients of inputs and tensors, and five steps of AdamW of a module outside of
/// any model. `logits(tape, inputs)`; inputs: names in the file with those of their gradients.
template <class Logits>
void run_module(Checker& check, const Case& c,
                const std::vector<graft::AdapterTensor<float>>& tensors,
                const std::vector<std::string>& inputs, Logits&& logits) {
  const auto file = tensors_of(c);
  const auto labels = labels_of(file, "labels");
  load_tensors(check, c, tensors);
  std::vector<Parameter> trained;
  for (const auto& t : tensors) {
    trained.push_back(t.parameter);
    t.parameter.zero_grad();
  }
  {
    Tape tape;
    std::vector<Var> x;
    for (const auto& name : inputs) x.push_back(tape.leaf(tensor_of<float>(file, name)));
    const auto y = logits(tape, x);
    compare_named(check, file, "logits", y.value());
    const auto loss = cross_entropy(y, labels);
    check.compare("loss", std::vector<float>{loss.item()}, graft::io::to_f64(file.at("loss")));
    tape.backward(loss);
    for (std::size_t i = 0; i < inputs.size(); ++i)
      compare_named(check, file, "d" + inputs[i], x[i].grad());
    compare_gradients(check, gradients(tensors), file, "grad.", vanishing_gradients(c.json));
  }
  const auto trace = graft::io::to_f64(file.at("trace_loss"));
  for (const auto& p : trained) p.zero_grad();
  graft::AdamW optimizer(trained, {.learning_rate = 1e-2, .weight_decay = 0});
  std::vector<double> losses;
  for (std::size_t step = 0; step < trace.size(); ++step) {
    Tape tape;
    std::vector<Var> x;
    for (const auto& name : inputs) x.push_back(tape.constant(tensor_of<float>(file, name)));
    const auto loss = cross_entropy(logits(tape, x), labels);
    losses.push_back(static_cast<double>(loss.item()));
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
  }
  check.compare("trace_loss", losses, trace);
}

void run_cones(Checker& check, const Case& c) {
  const auto config = read_config_of<graft::ConesConfig>(c);
  const auto file = tensors_of(c);
  const auto checkpoint = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const graft::ConceptEmbeddings concepts(
      config, tensor_of<float>(checkpoint, "base_model.model.shared.concept_embeddings"));
  const auto weight = [&](const char* name) {
    return tensor_of<float>(file, std::string(name) + ".weight");
  };
  run_module(check, c, concepts.tensors(), {"x"}, [&](Tape& tape, const std::vector<Var>& x) {
    if (config.consumer == "classifier")
      return concepts.classify(x[0], weight("visual_projection"));
    const auto y = concepts.attend(x[0], weight("q"), weight("k"), weight("v"), weight("out"));
    return matmul(mean_axis(y, 1), tape.constant(weight("readout")), Transpose::no, Transpose::yes);
  });
}

void run_crosstune(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  graft::StandaloneInit<float> init(0);
  const graft::Crosstune module(read_config_of<graft::CrosstuneConfig>(c),
                                file.at("features").shape.back(), init.context());
  auto mask = std::make_shared<std::vector<unsigned char>>();
  for (double m : graft::io::to_f64(file.at("mask"))) mask->push_back(m != 0);
  run_module(check, c, module.tensors(), {"features", "label_features"},
             [&](Tape&, const std::vector<Var>& x) { return module.apply(x[0], x[1], mask); });
}

void run_coordinator(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  graft::StandaloneInit<float> init(0);
  const graft::BlackvipCoordinator module(read_config_of<graft::BlackvipConfig>(c), init.context());
  load_tensors(check, c, module.tensors());
  Tape tape;
  const auto x = tape.leaf(tensor_of<float>(file, "x")),
             features = tape.leaf(tensor_of<float>(file, "features"));
  if (file.find("prompt") != nullptr)
    compare_named(check, file, "prompt", module.prompt(features).value());
  const auto y = module.apply(x, features);
  compare_named(check, file, "y", y.value());
  tape.backward(y, tensor_of<float>(file, "dy"));
  compare_named(check, file, "dx", x.grad());
  compare_named(check, file, "dfeatures", features.grad());
  compare_gradients(check, gradients(module.tensors()), file, "grad.", vanishing_gradients(c.json));
}

/// SPSA-GC on L(φ) = ½ (φ − target)ᵀ H (φ − target).
void run_spsa(Checker& check, const Case& c) {
  const auto config = read_config_of<graft::BlackvipConfig>(c);
  const auto file = tensors_of(c);
  const auto checkpoint = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const graft::BasicParameter<double> phi(
      tensor_of<double>(checkpoint, "base_model.model.coordinator.parameters"));
  const auto h = tensor_of<double>(file, "H"), target = tensor_of<double>(file, "target"),
             directions = tensor_of<double>(file, "directions");
  const auto loss = [&] {
    double total = 0;
    for (Index i = 0; i < phi.size(); ++i)
      for (Index j = 0; j < phi.size(); ++j)
        total += (phi.value()[i] - target[i]) * h(i, j) * (phi.value()[j] - target[j]) / 2;
    return total;
  };
  graft::BasicSpsa<double> optimizer({phi}, {.a = config.spsa_a,
                                             .c = config.spsa_c,
                                             .o = config.spsa_o,
                                             .alpha = config.spsa_alpha,
                                             .gamma = config.spsa_gamma,
                                             .momentum = config.momentum,
                                             .num_estimates = config.num_estimates,
                                             .rademacher = config.rademacher});
  std::vector<double> losses, estimates, parameters;
  const double* next = directions.data();
  for (Index step = 0; step < directions.dim(0); ++step) {
    std::vector<std::vector<double>> draws;
    for (Index d = 0; d < directions.dim(1); ++d, next += phi.size())
      draws.emplace_back(next, next + phi.size());
    losses.push_back(loss());
    const auto estimate = optimizer.step(loss, draws);
    estimates.insert(estimates.end(), estimate.begin(), estimate.end());
    parameters.insert(parameters.end(), phi.value().begin(), phi.value().end());
  }
  check.compare("loss_before_step", losses, graft::io::to_f64(file.at("loss_before_step")));
  check.compare("estimates", estimates, graft::io::to_f64(file.at("estimates")));
  check.compare("parameters", parameters, graft::io::to_f64(file.at("parameters")));
}

/// First and second order in double precision: the second is a difference of gradients.
void run_gram(Checker& check, const Case& c) {
  using DoubleTape = graft::BasicTape<double>;
  using DoubleVar = graft::BasicVar<double>;
  const auto file = tensors_of(c);
  const auto mix = tensor_of<double>(file, "mix.weight"),
             readout = tensor_of<double>(file, "readout.weight");
  graft::StandaloneInit<double> init(0);
  const graft::BasicGram<double> gram(read_config_of<graft::GramConfig>(c), mix.cols(),
                                      init.context());
  load_tensors(check, c, gram.tensors());
  const auto loss_of = [&](const std::string& name) {
    return [&, x = tensor_of<double>(file, name + "_x"),
            labels = labels_of(file, name + "_labels")](DoubleTape& tape, const DoubleVar& p) {
      const Index batch = x.dim(0), d = p.cols();
      const auto prompt = broadcast_to(reshape(p, {1, p.rows(), d}), {batch, p.rows(), d});
      const auto t = concat_along(1, std::vector<DoubleVar>{prompt, tape.constant(x)});
      const auto weights = softmax(scale(matmul(t, t, Transpose::no, Transpose::yes),
                                         1 / std::sqrt(static_cast<double>(d))));
      const auto mixed =
          tanh(matmul(matmul(weights, t), tape.constant(mix), Transpose::no, Transpose::yes));
      return cross_entropy(
          matmul(mean_axis(mixed, 1), tape.constant(readout), Transpose::no, Transpose::yes),
          labels);
    };
  };
  const auto support = loss_of("support"), query = loss_of("query");
  const auto [g, support_loss] = gram.gradient(gram.prompt().value(), support);
  compare_named(check, file, "inner_gradient", g);
  check.compare("support_loss", std::vector<double>{support_loss},
                graft::io::to_f64(file.at("support_loss")));
  compare_named(check, file, "adapted_prompt", gram.adapted(support));
  for (const bool second : {false, true}) {
    for (const auto& t : gram.tensors()) t.parameter.zero_grad();
    const double loss = gram.outer(support, query, second);
    check.compare("loss", std::vector<double>{loss}, graft::io::to_f64(file.at("loss")));
    for (const auto& t : gram.tensors())
      compare_named(check, file,
                    second ? "second_order." + t.name : "grad.base_model.model." + t.name,
                    t.parameter.grad());
  }
}

void run_prune(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto token = tensor_of<float>(file, "token_gradients"),
             segment = tensor_of<float>(file, "segment_gradients");
  graft::PromptScores<float> scores;
  for (Index b = 0; b < token.dim(0); ++b) {
    auto one = Tensor::empty({token.dim(1)}),
         other = Tensor::empty({segment.dim(1), segment.dim(2)});
    std::copy_n(token.data() + b * one.size(), one.size(), one.data());
    std::copy_n(segment.data() + b * other.size(), other.size(), other.data());
    scores.add(one, other);
  }
  compare_named(check, file, "token_score", scores.token());
  compare_named(check, file, "segment_score", scores.segment());
  const auto masks = graft::prune_prompts(scores.token(), scores.segment(),
                                          read_config_of<graft::E2vptConfig>(c).prune_percent);
  compare_named(check, file, "token_mask", masks.token);
  compare_named(check, file, "segment_mask", masks.segment);
}

std::unique_ptr<graft::models::Model> model_of(const Case& c) {
  return graft::models::load<float>(c.folder / c.json.at("base").get<std::string>());
}
Batch images(const SafetensorsFile& file, const std::string& prefix) {
  Batch batch;
  batch.pixels = tensor_of<float>(file, prefix + "pixels");
  batch.batch = batch.pixels.dim(0);
  batch.labels = labels_of(file, prefix + "labels");
  return batch;
}
template <class Part>
Part& part_of(graft::AdapterSet<float>& set) {
  for (const auto& placed : set.parts())
    if (auto* part = dynamic_cast<Part*>(placed.part.get())) return *part;
  throw graft::ValueError("the adapter has no such part");
}

/// The model case, and the scores of the segments.
void run_scores(Checker& check, const Case& c) {
  check.merge(run_method_model_case(c), "");
  const auto file = tensors_of(c);
  if (file.find("segment_score") == nullptr) return;
  const auto model = model_of(c);
  AdapterModel adapters(model->sites(), methods<float>());
  auto& set = adapters.load("default", c.folder);
  Tape tape;
  tape.backward(model->loss(tape, images(file, "")));
  graft::PromptScores<float> scores;
  part_of<graft::MaskedPrompts<float>>(set).add_scores(scores);
  compare_named(check, file, "segment_score", scores.segment());
}

/// Class token of the last hidden states.
Var class_token(Tape& tape, const graft::models::Model& model, const Batch& batch) {
  const auto& vit = dynamic_cast<const graft::models::Vit&>(model);
  const auto h = vit.hidden(tape, batch);
  return reshape(slice(h, 1, 0, 1), {batch.batch, h.cols()});
}

void run_pvp(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::PvpConfig>(c);
  const auto model = model_of(c);
  AdapterModel adapters(model->sites(), methods<float>());
  auto& set = adapters.load("default", c.folder);
  for (const std::string stage : {"source", "target"}) {
    const Parameter weight(tensor_of<float>(file, stage + "_head.weight")),
        bias(tensor_of<float>(file, stage + "_head.bias"));
    const auto batch = images(file, stage + "_");
    const auto losses = graft::pvp_stage<float>(
        set.parameters(), {weight, bias}, config.steps,
        [&](const std::vector<Parameter>& all) {
          return graft::AdamW(all, {.learning_rate = config.learning_rate, .weight_decay = 0});
        },
        [&](Tape& tape) {
          const auto y = add(matmul(class_token(tape, *model, batch), tape.parameter(weight),
                                    Transpose::no, Transpose::yes),
                             tape.parameter(bias));
          return cross_entropy(y, batch.labels);
        });
    check.compare(stage + "_loss", losses, graft::io::to_f64(file.at(stage + "_loss")));
    const std::string prefix = stage == "source" ? "pretrained." : "final.";
    for (const auto& [key, tensor] : set.tensors())
      compare_named(check, file, prefix + key.substr(std::string("base_model.model.").size()),
                    tensor.parameter.value());
  }
}

void run_proxies(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto model = model_of(c);
  AdapterModel adapters(model->sites(), methods<float>());
  auto& set = adapters.load("default", c.folder);
  auto& proxies = part_of<graft::SemanticProxies<float>>(set);
  const auto batch = images(file, "");
  for (const auto& p : set.parameters()) p.zero_grad();
  Tape tape;
  const auto z = unit_rows(class_token(tape, *model, batch));
  compare_named(check, file, "embeddings", z.value());
  const auto loss = proxies.loss(z, batch.labels);
  check.compare("loss", std::vector<float>{loss.item()}, graft::io::to_f64(file.at("loss")));
  tape.backward(loss);
  compare_gradients(check, gradients_of(adapters, {"default"}), file, "grad.",
                    vanishing_gradients(c.json));
  Tape frozen({.gradients = false, .training = false});
  const auto s =
      proxies.with_classes(batch.labels, [&] { return class_token(frozen, *model, batch); });
  compare_named(check, file, "semantic_proxies", s.value());
  proxies.accumulate(s.value(), batch.labels);
  compare_named(check, file, "proxies_after", proxies.proxies());
}

const Handler prompt_handlers[] = {
    {{.kind = "layer", .peft_type = "CONES"}, run_cones},
    {{.kind = "layer", .peft_type = "CROSSTUNE"}, run_crosstune},
    {{.kind = "layer", .peft_type = "BLACKVIP"}, run_coordinator},
    {{.kind = "procedure", .peft_type = "BLACKVIP"}, run_spsa},
    {{.kind = "procedure", .peft_type = "GRAM"}, run_gram},
    {{.kind = "procedure", .peft_type = "E2VPT"}, run_prune},
    {{.kind = "model", .peft_type = "E2VPT"}, run_scores},
    {{.kind = "procedure", .peft_type = "PVP"}, run_pvp},
    {{.kind = "model", .peft_type = "SEMANTIC_PROXY_PROMPTS"}, run_proxies},
};

}  // namespace
}  // namespace conformance
