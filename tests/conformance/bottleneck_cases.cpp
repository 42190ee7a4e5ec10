// Cases of bottleneck adapters that are no plain layer or model.
#include "graft/adapters/bottleneck/detris.hpp"
#include "graft/adapters/bottleneck/dyt.hpp"
#include "graft/adapters/bottleneck/mosa.hpp"
#include "graft/adapters/bottleneck/pha.hpp"
#include "graft/adapters/bottleneck/polyhistor.hpp"
#include "graft/adapters/bottleneck/sparse_adapter.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"
#include "model_run.hpp"

namespace conformance {
namespace {

/// One sublayer: `x` is its residual, `h` its result, `norm` what follows the residual sum (with
/// post_norm).
void sublayer(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  graft::HiddenSite site("layer", file.at("x").shape.back(), graft::HiddenRole::attention);
  graft::SiteTable table;
  table.hidden = {&site};
  table.info.architecture = "toy";
  graft::AdapterModel model(table, methods<float>());
  model.load("default", c.folder);
  const bool normed = config_of(c).value("post_norm", true);
  const auto weight = tensor_of<float>(file, "norm.weight"),
             bias = tensor_of<float>(file, "norm.bias");
  graft::Tape tape;
  const auto x = tape.leaf(tensor_of<float>(file, "x")), h = tape.leaf(tensor_of<float>(file, "h"));
  auto y = add(x, site(x, h, x));
  if (normed) y = layer_norm(y, tape.constant(weight), tape.constant(bias), 1e-5F);
  check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
  tape.backward(y, tensor_of<float>(file, "dy"));
  check.compare("dx", values_of(x.grad()), graft::io::to_f64(file.at("dx")));
  check.compare("dh", values_of(h.grad()), graft::io::to_f64(file.at("dh")));
  compare_gradients(check, gradients_of(model, {"default"}), file, "grad.");
}

void vl_pet(Checker& check, const Case& c) {
  if (config_of(c).value("part", "encoder") == "encoder")
    sublayer(check, c);
  else
    run_layer<float>(check, c);
}
/// A net tanh(fc1), fc2 with an adapter behind each (the first behind the tanh), cross-entropy:
/// scores, masks, and what the masked net gives.
void sparse_adapter(Checker& check, const Case& c) {
  using graft::SparseAdapterMethod;
  const auto file = tensors_of(c);
  check_known<double>(c);
  Toy<double> toy(Json(), file, "");
  const auto config = read_config_of<graft::SparseAdapterConfig>(c);
  graft::BasicAdapterModel<double> model(toy.sites(), methods<double>());
  model.load("default", c.folder);
  auto& set = model.at("default");
  const auto adapters = SparseAdapterMethod<double>::modules(set.parts());
  const auto labels = graft::io::to_i64(file.at("labels"));
  const auto x = tensor_of<double>(file, "x");
  const auto layer = [&](const char* name) {
    return graft::BasicDenseLinear<double>(tensor_of<double>(file, concat(name, ".weight")),
                                           tensor_of<double>(file, concat(name, ".bias")));
  };
  const auto fc1 = layer("fc1"), fc2 = layer("fc2");
  BasicTensor<double> logits;
  const auto loss = [&] {
    for (const auto& p : set.parameters()) p.zero_grad();
    graft::BasicTape<double> tape;
    auto h = tanh(linear(fc1, tape.constant(x)));
    h = add(h, (*adapters[0])(h));
    auto y = linear(fc2, h);
    y = add(y, (*adapters[1])(y));
    logits = y.value();
    const auto value = graft::cross_entropy(y, labels);
    tape.backward(value);
    return value.item();
  };
  std::vector<std::string> names;
  std::vector<graft::BasicParameter<double>> weights;
  for (std::size_t k = 0; k < adapters.size(); ++k)
    for (const bool down : {true, false}) {
      names.push_back(concat("fc", k + 1, down ? ".adapter_down.weight" : ".adapter_up.weight"));
      weights.push_back(adapters[k]->weight(down));
    }
  for (Index round = 0; round < config.rounds; ++round) {
    std::vector<BasicTensor<double>> scores;
    if (config.score == "grasp") {
      scores = graft::grasp_scores(weights, [&] {
        loss();
        std::vector<BasicTensor<double>> all;
        for (const auto& w : weights) all.push_back(w.grad().clone());
        return all;
      });
    } else if (config.score == "synflow") {
      for (const auto* adapter : adapters) {
        auto [down, up] = adapter->synflow();
        scores.push_back(std::move(down));
        scores.push_back(std::move(up));
      }
    } else {
      if (config.score == "snip") loss();
      double total = 0;
      for (std::size_t k = 0; k < weights.size(); ++k) {
        auto s = config.score == "random" ? tensor_of<double>(file, "random_" + names[k])
                                          : weights[k].value().clone();
        for (Index i = 0; i < s.size(); ++i) {
          if (config.score == "snip") s[i] *= weights[k].grad()[i];
          total += s[i] = std::abs(s[i]);
        }
        scores.push_back(std::move(s));
      }
      if (config.score == "snip")
        for (auto& s : scores)
          for (double& v : s) v /= total;
    }
    for (std::size_t k = 0; k < names.size() && config.rounds == 1; ++k)
      if (const auto* view = file.find("score." + names[k]))
        check.compare(view->name, values_of(scores[k]), graft::io::to_f64(*view));
    graft::prune_adapters(adapters, scores, config.sparsity_after(round));
  }
  for (std::size_t k = 0; k < names.size(); ++k)
    check.require(values_of(adapters[k / 2]->mask(k % 2 == 0)) ==
                      graft::io::to_f64(file.at("mask." + names[k])),
                  "another mask of " + names[k]);
  check.compare("loss", std::vector<double>{loss()}, graft::io::to_f64(file.at("loss")));
  check.compare("logits", values_of(logits), graft::io::to_f64(file.at("logits")));
  compare_gradients(check, gradients_of(model, {"default"}), file, "grad.");
}
const Handler sparse_adapter_cases({.kind = "procedure", .peft_type = "SPARSE_ADAPTER"},
                                   sparse_adapter);

/// Stages of different widths, each a frozen layer with the adapter behind it: x0, x1, … -> y, one
/// after the other.
void polyhistor(Checker& check, const Case& c) {
  using Module = graft::SerialAdapter<graft::BasicPolyhistor<float>>;
  const auto file = tensors_of(c);
  check_known<float>(c);
  graft::SiteTable table;
  std::vector<std::unique_ptr<graft::HiddenSite>> sites;
  for (std::size_t k = 0; file.find(concat("x", k)) != nullptr; ++k) {
    sites.push_back(std::make_unique<graft::HiddenSite>(
        concat("stage", k), file.at(concat("y", k)).shape.back(), graft::HiddenRole::feed_forward));
    table.hidden.push_back(sites.back().get());
  }
  table.info.architecture = "toy";
  graft::AdapterModel model(table, methods<float>());
  auto& set = model.load("default", c.folder);
  std::vector<graft::DenseLinear> frozen;
  for (std::size_t k = 0; k < sites.size(); ++k)
    frozen.emplace_back(tensor_of<float>(file, concat("stage", k, ".weight")),
                        tensor_of<float>(file, concat("stage", k, ".bias")));
  graft::Tape tape;
  std::vector<graft::Var> inputs;
  graft::Var objective;
  const auto dy = graft::io::to_f64(file.at("dy"));
  std::size_t done = 0;
  const auto modules = graft::methods_of<Module>(set.parts());
  for (std::size_t k = 0; k < sites.size(); ++k) {
    inputs.push_back(tape.leaf(tensor_of<float>(file, concat("x", k))));
    const auto y = (*sites[k])(inputs[k], linear(frozen[k], inputs[k]));
    const auto expected = graft::io::to_f64(file.at(concat("y", k)));
    check.compare(concat("y", k), values_of(y.value()), expected);
    const auto begin = dy.begin() + static_cast<std::ptrdiff_t>(done);
    done += expected.size();
    const std::vector<double> own(begin, begin + std::ssize(expected));
    const auto term = sum(mul(y, tape.constant(BasicTensor<float>::from(own, y.shape()))));
    objective = objective ? add(objective, term) : term;
    const auto [down, up] = modules.at(k)->module().exported();
    check.compare(concat("exported", k, ".down"), values_of(down),
                  graft::io::to_f64(file.at(concat("exported", k, ".down"))));
    check.compare(concat("exported", k, ".up"), values_of(up),
                  graft::io::to_f64(file.at(concat("exported", k, ".up"))));
  }
  tape.backward(objective);
  for (std::size_t k = 0; k < inputs.size(); ++k)
    check.compare(concat("dx", k), values_of(inputs[k].grad()),
                  graft::io::to_f64(file.at(concat("dx", k))));
  compare_gradients(check, gradients_of(model, {"default"}), file, "grad.");
}
const Handler polyhistor_cases({.kind = "layer", .peft_type = "POLYHISTOR"}, polyhistor);
const Handler polyhistor_lite_cases({.kind = "layer", .peft_type = "POLYHISTOR_LITE"}, polyhistor);

/// A layer that looks at text features; these have a gradient as well.
void detris(Checker& check, const Case& c) {
  using Module = graft::BasicDETRIS<float>;
  LayerSteps<float> steps;
  steps.before = [](graft::AdapterModel& model, const SafetensorsFile& file) {
    for (const auto* module : graft::methods_of<Module>(model.at("default").parts()))
      module->set_text(tensor_of<float>(file, "text"));
  };
  run_layer(check, c, steps);
  const auto file = tensors_of(c);
  if (file.find("text") == nullptr) return;
  Toy<float> toy(Json(), file, single_target(c.folder));
  graft::AdapterModel model(toy.sites(), methods<float>());
  auto& set = model.load("default", c.folder);
  const auto in = toy.inputs(file);
  graft::Tape tape({.training = false});
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = in.x[0].dim(0);
  tape.set_context(context);
  const auto text = tape.leaf(tensor_of<float>(file, "text"));
  for (const auto* module : graft::methods_of<Module>(set.parts())) module->set_text(text);
  tape.backward(toy(tape, in)[0], in.dy[0]);
  check.compare("dtext", values_of(text.grad()), graft::io::to_f64(file.at("dtext")));
}
const Handler detris_cases({.kind = "layer", .peft_type = "DETRIS"}, detris);

BasicTensor<float> logits_of(const graft::models::Model& model, const graft::models::Batch& batch,
                             bool training) {
  graft::Tape tape({.gradients = false, .training = training});
  return model.logits(tape, batch).value().clone();
}
void dyt(Checker& check, const Case& c) {
  using Module = graft::BasicDyT<float>;
  const auto file = tensors_of(c);
  const bool training = file.find("gumbel_difference") != nullptr;
  const auto modules = [](graft::AdapterModel& model) {
    return graft::methods_of<Module>(model.at("default").parts());
  };
  MethodModelSteps steps;
  steps.objective = true;
  steps.prepare = [&](graft::AdapterModel& adapters) {
    const auto gates = modules(adapters);
    for (std::size_t l = 0; l < gates.size() && training; ++l)
      gates[l]->set_noise(part(tensor_of<float>(file, "gumbel_difference"), static_cast<Index>(l)));
  };
  steps.after = [&](Checker& more, const graft::models::Model& model, graft::AdapterModel& adapters,
                    const graft::models::Batch& batch) {
    logits_of(model, batch, training);
    const auto gates = modules(adapters);
    double open = 0, count = 0;
    for (std::size_t l = 0; l < gates.size(); ++l) {
      const auto& mask = gates[l]->token_mask();
      more.compare(concat("token_mask of block ", l), values_of(mask),
                   values_of(part(tensor_of<float>(file, "token_mask"), static_cast<Index>(l))));
      const Index tokens = mask.size() / batch.batch;
      for (Index i = 0; i < mask.size(); ++i)
        if (i % tokens != 0) {
          open += static_cast<double>(mask[i]);
          count += 1;
        }
    }
    const double off = open / count - config_of(c).value("token_target_ratio", 0.5);
    more.compare("loss_rate", std::vector<double>{off * off},
                 graft::io::to_f64(file.at("loss_rate")));
    if (file.find("logits_complete") == nullptr) return;
    gates.front()->pass()->complete = true;
    more.compare("logits_complete", values_of(logits_of(model, batch, training)),
                 graft::io::to_f64(file.at("logits_complete")));
    gates.front()->pass()->complete = false;
  };
  check.merge(run_method_model_case(c, steps), "");
}
const Handler dyt_cases({.kind = "model", .peft_type = "DYT"}, dyt);

/// The experts of the passes are given: the first logits, then the two passes of the objective.
void mosa(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto take = [&](graft::AdapterModel& adapters, const std::string& name) {
    const auto experts = graft::io::to_i64(file.at(name));
    std::size_t at = 0;
    for (auto* module :
         graft::methods_of<graft::BasicMoSA<float>>(adapters.at("default").parts())) {
      module->take_next(experts.at(at), experts.at(at + 1));
      at += 2;
    }
  };
  MethodModelSteps steps;
  steps.objective = true;
  steps.prepare = [&](graft::AdapterModel& adapters) {
    for (const char* name : {"experts_pass1", "experts_pass1"}) take(adapters, name);
    // Without a weight there is no second pass.
    if (config_of(c).value("consistency_weight", 1.0) != 0) take(adapters, "experts_pass2");
  };
  steps.after = [&](Checker& more, const graft::models::Model& model, graft::AdapterModel& adapters,
                    const graft::models::Batch& batch) {
    more.compare("logits_merged", values_of(logits_of(model, batch, false)),
                 graft::io::to_f64(file.at("logits_merged")));
    take(adapters, "experts_pass2");
    more.compare("logits_pass2", values_of(logits_of(model, batch, true)),
                 graft::io::to_f64(file.at("logits_pass2")));
    take(adapters, "experts_pass1");
    graft::Tape tape;
    more.compare("cross_entropy", values_of(model.loss(tape, batch).value()),
                 graft::io::to_f64(file.at("cross_entropy")));
  };
  check.merge(run_method_model_case(c, steps), "");
}
const Handler mosa_cases({.kind = "model", .peft_type = "MOSA"}, mosa);

void pha(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  MethodModelSteps steps;
  steps.objective = true;
  steps.after = [&](Checker& more, const graft::models::Model& model, graft::AdapterModel& adapters,
                    const graft::models::Batch& batch) {
    const auto* retriever = graft::PHAMethod<float>::retriever(adapters.at("default").parts());
    graft::Tape tape({.training = false});
    more.compare("loss_task", values_of(model.loss(tape, batch).value()),
                 graft::io::to_f64(file.at("loss_task")));
    more.compare("query", values_of(graft::detail::unit_length(retriever->query()).value()),
                 graft::io::to_f64(file.at("query")));
    more.compare("loss_instance", values_of(retriever->instance_loss(tape).value()),
                 graft::io::to_f64(file.at("loss_instance")));
    more.compare("loss_prototype", values_of(retriever->prototype_loss(tape).value()),
                 graft::io::to_f64(file.at("loss_prototype")));
  };
  check.merge(run_method_model_case(c, steps), "");
}
const Handler pha_cases({.kind = "model", .peft_type = "PHA"}, pha);

const Handler vl_pet_cases({.kind = "layer", .peft_type = "VL_PET"}, vl_pet);

}  // namespace
}  // namespace conformance
