// Cases of low-rank methods whose ranks, groups or optimisers act during training, and of those
// with inputs, outputs or losses of their own.
#include "graft/adapters/low_rank/aslora.hpp"
#include "graft/adapters/low_rank/dsee.hpp"
#include "graft/adapters/low_rank/gradnormlorp.hpp"
#include "graft/adapters/low_rank/hipa.hpp"
#include "graft/adapters/low_rank/increlora.hpp"
#include "graft/adapters/low_rank/mtlora.hpp"
#include "graft/adapters/low_rank/pela.hpp"
#include "graft/adapters/low_rank/portllm.hpp"
#include "graft/adapters/low_rank/psec.hpp"
#include "graft/adapters/low_rank/relaxed_recursive.hpp"
#include "graft/adapters/low_rank/triadaptlora.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/optim/lora_plus.hpp"
#include "graft/optim/sgd.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using Matrix = BasicTensor<double>;
using graft::AdapterModel;
using graft::detail::product;
using Model = graft::BasicAdapterModel<double>;

/// @throws IoError if the file has no such tensor
Matrix get(const SafetensorsFile& file, const std::string& name) {
  file.at(name);
  return tensor_of<double>(file, name);
}
void compare(Checker& check, const std::string& name, const Matrix& found, const Matrix& expected) {
  check.compare(name, values_of(found), values_of(expected));
}
/// p −= rate · gradient, where there is one; gradients are dropped.
void descend(const std::vector<graft::BasicParameter<double>>& parameters, double rate) {
  for (const auto& p : parameters) {
    if (p.grad() && p.trainable())
      for (Index i = 0; i < p.size(); ++i) p.value()[i] -= rate * p.grad()[i];
    p.zero_grad();
  }
}
/// Backward pass with the gradient of the layer's whole weight given: rows of an identity are the
/// input, so that dyᵀ x is it.
template <class M>
void backward(const M& method, const Matrix& gradient) {
  const Index out = gradient.rows(), in = gradient.cols();
  const graft::BasicDenseLinear<double> layer{Matrix::zeros({out, in})};
  graft::BasicTape<double> tape;
  const auto y = method.apply(layer, tape.constant(Matrix::identity(in)));
  tape.backward(y, transposed(gradient));
}
/// ΔW of a method.
template <class M>
Matrix update_of(const M& method, Index out, Index in) {
  const graft::BasicDenseLinear<double> layer{Matrix::zeros({out, in})};
  graft::BasicTape<double> tape({.gradients = false, .training = false});
  return transposed(method.apply(layer, tape.constant(Matrix::identity(in))).value());
}
template <class M, class Config>
M standalone(const Config& config, Index out, Index in) {
  const graft::BasicDenseLinear<double> layer{Matrix::zeros({out, in})};
  return M(config, layer);
}

void run_lora_plus(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json options = config_of(c);
  std::vector<graft::BasicNamedParameter<double>> parameters;
  for (const auto& view : file.tensors())
    if (view.name.starts_with("initial."))
      parameters.push_back(
          {view.name.substr(8), graft::BasicParameter<double>(get(file, view.name))});
  const double rate = options.at("lr"), decay = options.value("weight_decay", 0.0);
  graft::LoRAPlusConfig grouping{.learning_rate = rate, .weight_decay = decay};
  grouping.ratio = options.value("loraplus_lr_ratio", grouping.ratio);
  grouping.embedding_learning_rate =
      options.value("loraplus_lr_embedding", grouping.embedding_learning_rate);
  const auto groups = graft::lora_plus_groups(parameters, grouping);
  for (const auto& [name, group] : c.json.at("groups").items())
    for (const auto& entry : group.at("members")) {
      const auto member = entry.get<std::string>();
      const double expected_rate = group.at("lr"), expected_decay = group.at("weight_decay");
      bool found = false;
      for (const auto& [key, parameter, group_name] : parameters)
        for (const auto& g : groups)
          if (key == member && std::count(g.parameters.begin(), g.parameters.end(), parameter) == 1)
            found = std::abs(g.learning_rate_ratio * rate - expected_rate) < 1e-9 * expected_rate &&
                    g.weight_decay.value_or(decay) == expected_decay;
      check.require(found, concat(member, " is in another group than ", name));
    }
  std::unique_ptr<graft::BasicOptimizer<double>> optimizer;
  if (options.value("optimizer", "AdamW") == "SGD")
    optimizer = std::make_unique<graft::BasicSgd<double>>(
        groups, graft::SgdConfig{.learning_rate = rate, .weight_decay = decay});
  else
    optimizer = std::make_unique<graft::BasicAdamW<double>>(
        groups, graft::AdamWConfig{.learning_rate = rate, .weight_decay = decay});
  const Index steps = get(file, "param." + parameters.front().name).dim(0);
  for (Index t = 0; t < steps; ++t) {
    for (const auto& [name, parameter, group_name] : parameters)
      parameter.mutable_grad() = part(get(file, "grad." + name), t);
    optimizer->step();
    for (const auto& [name, parameter, group_name] : parameters)
      compare(check, concat(name, " after step ", t + 1), parameter.value(),
              part(get(file, "param." + name), t));
  }
}

void run_adalora(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = graft::read_config_file(c.folder / "adapter_config.json");
  const double rate = config_of(c).at("lr");
  const auto build = [&](bool squared, auto&& use) {
    std::vector<std::unique_ptr<graft::BasicLinearSite<double>>> sites;
    graft::BasicSiteTable<double> table;
    for (const auto& view : file.tensors()) {
      static const std::string prefix = "initial.", suffix = ".lora_A";
      if (!view.name.starts_with(prefix) || !view.name.ends_with(suffix)) continue;
      const auto name =
          view.name.substr(prefix.size(), view.name.size() - prefix.size() - suffix.size());
      const Index in = get(file, view.name).cols(),
                  out = get(file, prefix + name + ".lora_B").rows();
      sites.push_back(std::make_unique<graft::BasicLinearSite<double>>(
          name, graft::BasicDenseLinear<double>(Matrix::zeros({out, in}))));
      table.linear.push_back(sites.back().get());
    }
    Model model(table, methods<double>());
    auto map = config;
    if (squared) map["squared_regulariser"] = true;
    graft::TorchGenerator generator(0);
    auto& set = model.add("default", map, generator);
    std::map<std::string, graft::BasicParameter<double>> parameters;
    for (const auto& [key, tensor] : set.tensors()) {
      const std::string name = key.substr(std::string("base_model.model.").size());
      tensor.parameter.assign(get(file, "initial." + name));
      parameters[name] = tensor.parameter;
    }
    graft::BasicTape<double> tape;
    compare(check, squared ? "regulariser_squared" : "regulariser",
            set.auxiliary_loss(tape).value(),
            get(file, squared ? "regulariser_squared" : "regulariser"));
    use(set, parameters);
  };
  build(true, [](auto&, auto&) {});
  build(false, [&](auto& set, auto& parameters) {
    const auto* procedure = dynamic_cast<const graft::AdaLoRAProcedure<double>*>(set.procedure());
    const auto& trace = c.json.at("trace");
    const Index total = static_cast<Index>(trace.size());
    for (const auto& entry : trace) {
      const Index t = entry.at("step").template get<Index>();
      for (auto& [name, p] : parameters) {
        p.mutable_grad() = part(get(file, "grad." + name), t - 1);
        for (Index i = 0; i < p.size(); ++i) p.value()[i] -= rate * p.grad()[i];
      }
      set.procedure()->after_step({t, total, rate});
      if (procedure != nullptr)
        check.require(procedure->budget_at(t, total) == entry.at("budget").template get<Index>(),
                      concat("another budget at step ", t));
      for (const auto& [site, kept] : entry.at("kept").items()) {
        const auto& e = parameters.at(site + ".lora_E").value();
        std::vector<int> found;
        for (const double v : e) found.push_back(v != 0 ? 1 : 0);
        check.require(found == kept.template get<std::vector<int>>(),
                      concat("step ", t, " keeps other triplets of ", site));
        compare(check, concat("E.", site, " ", t), e, part(get(file, "E." + site), t - 1));
      }
    }
    for (const auto& [name, p] : parameters)
      compare(check, "final." + name, p.value(), get(file, "final." + name));
  });
}

void run_gradnorm(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::GradNormLoRPConfig>(c);
  const auto gradients = get(file, "D");
  const graft::BasicDenseLinear<double> layer{get(file, "initial_weight")};
  const graft::BasicGradNormLoRP<double> method(config, layer);
  graft::GradNormOptimizer<double> optimizer;
  Index projectors = 0;
  for (const auto& entry : c.json.at("trace")) {
    const Index t = entry.at("step").get<Index>() - 1;
    backward(method, part(gradients, t));
    const auto &v = method.direction(), &g = method.magnitude();
    compare(check, "direction_grad", v.grad(), part(get(file, "direction_grad"), t));
    compare(check, "magnitude_grad", g.grad(), part(get(file, "magnitude_grad"), t));
    optimizer.step(config, v.value(), g.value(), v.grad(), g.grad(), config.learning_rate);
    v.zero_grad();
    g.zero_grad();
    if (entry.at("new_projector").get<bool>()) ++projectors;
    compare(check, "P", optimizer.projector(), part(get(file, "P"), projectors - 1));
    compare(check, "v", v.value(), part(get(file, "v"), t));
    compare(check, "g", g.value(), part(get(file, "g"), t));
    compare(check, "weight", update_of(method, v.value().rows(), v.value().cols()),
            part(get(file, "weight"), t));
  }
}

void run_portllm(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  auto config = read_config_of<graft::PortLLMConfig>(c);
  const auto strengths = config.strengths;
  // The patches with these strengths on a weight.
  const auto patched = [&](const std::string& weight, std::vector<double> with) {
    config.strengths = std::move(with);
    graft::BasicLinearSite<double> site("proj", graft::BasicDenseLinear<double>(get(file, weight)));
    graft::BasicSiteTable<double> table;
    table.linear = {&site};
    Model model(table, methods<double>());
    auto& set = model.load("default", c.folder);
    const auto& method =
        *graft::method_of<graft::BasicPortLLM<double>>(set.parts().front().part.get());
    check.require(method.patches() == strengths.size(), "another number of patches");
    graft::StandaloneInit<double> init(0);
    graft::BasicPortLLM<double> own(config, graft::site_info(site.base()), init.context());
    auto tensors = own.tensors();
    const auto loaded = method.tensors();
    for (std::size_t i = 0; i < tensors.size(); ++i)
      tensors[i].parameter.assign(loaded[i].parameter.value());
    return merge_linear(site.base(), own).dense_weight();
  };
  const auto whole = patched("new_weight", strengths);
  compare(check, "patched_weight", whole, get(file, "patched_weight"));
  auto fewer = strengths;
  fewer.back() = 0;
  compare(check, "without_last", patched("new_weight", fewer), get(file, "without_last"));
  auto first = std::vector<double>(strengths.size(), 0.0);
  first[0] = 1;
  compare(check, "tuned_old_weight", patched("old_weight", first), get(file, "tuned_old_weight"));
  for (std::size_t k = 0; k < strengths.size(); ++k) {
    auto one = std::vector<double>(strengths.size(), 0.0);
    one[k] = 1;
    auto delta = patched("new_weight", one).clone();
    const auto w = get(file, "new_weight");
    for (Index i = 0; i < delta.size(); ++i) delta[i] -= w[i];
    compare(check, "delta", delta, get(file, concat("patch", k, ".delta")));
  }
  // Loaded as an adapter, merged and unmerged.
  graft::BasicLinearSite<double> site("proj",
                                      graft::BasicDenseLinear<double>(get(file, "new_weight")));
  graft::BasicSiteTable<double> table;
  table.linear = {&site};
  Model model(table, methods<double>());
  model.load("default", c.folder);
  const auto run = [&] {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    return site(tape.constant(get(file, "x"))).value();
  };
  compare(check, "y", run(), get(file, "y"));
  model.merge();
  compare(check, "merged y", run(), get(file, "y"));
  compare(check, "merged weight", site.base().dense_weight(), get(file, "patched_weight"));
}

void run_dsee_support(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::DSEEConfig>(c);
  const auto w = get(file, "weight");
  const auto d = graft::dsee_decomposition(w, config, get(file, "v0"));
  compare(check, "low_rank", d.low_rank, get(file, "low_rank"));
  compare(check, "sparse", d.sparse, get(file, "sparse"));
  check.require(d.rank == c.json.at("trace").at(0).at("rank").get<Index>(), "another rank");
  const auto places = [&](const Matrix& m) {
    std::vector<std::int64_t> list;
    for (const auto place : graft::largest_places(m, config.num_sparse)) {
      list.push_back(place / w.cols());
      list.push_back(place % w.cols());
    }
    return list;
  };
  check.require(places(d.sparse) == graft::io::to_i64(file.at("decomposed_index")),
                "decomposed_index differs");
  check.require(places(w) == graft::io::to_i64(file.at("magnitude_index")),
                "magnitude_index differs");
}

void run_dsee_pruning(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::DSEEConfig>(c);
  std::vector<Matrix> weights;
  while (file.find(concat("weight.", weights.size())) != nullptr)
    weights.push_back(get(file, concat("weight.", weights.size())));
  const auto whole = graft::prune_masks(weights, config.prune_ratio);
  for (std::size_t k = 0; k < weights.size(); ++k) {
    const auto own = graft::prune_masks(std::vector<Matrix>{weights[k]}, config.prune_ratio)[0];
    check.require(own == graft::io::to_i64(file.at(concat("layer_mask.", k))),
                  "layer_mask differs");
    check.require(whole[k] == graft::io::to_i64(file.at(concat("global_mask.", k))),
                  "global_mask differs");
  }
  const graft::BasicParameter<double> heads(get(file, "head_scale"));
  graft::BasicTape<double> tape;
  const auto loss = graft::dsee_head_loss(tape.parameter(heads), config);
  compare(check, "head_loss", loss.value(), get(file, "head_loss"));
  tape.backward(loss);
  compare(check, "head_loss_grad", heads.grad(), get(file, "head_loss_grad"));
  check.require(graft::dsee_removed_heads(heads.value(), config) ==
                    graft::io::to_i64(file.at("removed_heads")),
                "removed_heads differ");
}

void run_hipa_loss(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  auto config = read_config_of<graft::HiPAConfig>(c);
  graft::BasicTape<double> tape;
  for (const char* who : {"student", "teacher"}) {
    const auto image = tape.constant(get(file, who));
    compare(check, concat("high_pass_", who), graft::high_pass(image, config.radius).value(),
            get(file, concat("high_pass_", who)));
    compare(check, concat("edges_", who), graft::sobel_edges(image).value(),
            get(file, concat("edges_", who)));
  }
  const graft::BasicParameter<double> student(get(file, "student"));
  const auto loss = graft::high_frequency_loss(tape.parameter(student),
                                               tape.constant(get(file, "teacher")), config);
  tape.backward(loss);
  auto expected = get(file, "fourier_loss").clone(), slope = get(file, "fourier_grad").clone();
  const auto edge = get(file, "edge_loss"), edge_slope = get(file, "edge_grad");
  expected[0] = config.loss_weight * (expected[0] + edge[0]);
  for (Index i = 0; i < slope.size(); ++i)
    slope[i] = config.loss_weight * (slope[i] + edge_slope[i]);
  compare(check, "loss", loss.value(), expected);
  compare(check, "gradient", student.grad(), slope);
}

void run_psec(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  LayerSteps<float> steps;
  const auto set_context = [&](AdapterModel& model) {
    for (const auto& placed : model.at("default").parts())
      if (auto* method = graft::method_of<graft::PSEC>(placed.part.get())) {
        method->set_context(tensor_of<float>(file, "context"));
        method->context().set_trainable(true);
      }
  };
  if (file.find("context") == nullptr) return run_layer<float>(check, c);
  steps.before = [&](AdapterModel& model, const SafetensorsFile&) { set_context(model); };
  run_layer<float>(check, c, steps);
  Toy<float> toy(c.json.value("module", Json()), file, "");
  AdapterModel model(toy.sites(), methods<float>());
  auto& set = model.load("default", c.folder);
  set_context(model);
  const auto& method = *graft::method_of<graft::PSEC>(set.parts().front().part.get());
  const auto in = toy.inputs(file);
  graft::Tape tape;
  check.compare("coefficients", values_of(method.coefficients(tape).value()),
                graft::io::to_f64(file.at("coefficients")));
  tape.backward(toy(tape, in)[0], in.dy[0]);
  check.compare("dcontext", values_of(method.context().grad()),
                graft::io::to_f64(file.at("dcontext")));
  check_auxiliary<float>(check, model, file, [&](auto& t) { return model.auxiliary_loss(t); });
}

void run_mtlora(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  Toy<float> toy(c.json.value("module", Json()), file, single_target(c.folder));
  const auto in = toy.inputs(file);
  check_outputs(check, toy, in, file, "y_base");
  AdapterModel model(toy.sites(), methods<float>());
  auto& set = model.load("default", c.folder);
  const auto& method = *graft::method_of<graft::MTLoRA>(set.parts().front().part.get());
  const auto& base = toy.sites().linear.front()->base();
  graft::Tape tape;
  const auto x = tape.leaf(in.x[0]);
  std::map<std::string, graft::Var> inputs;
  for (const auto& view : file.tensors())
    if (view.name.starts_with("x."))
      inputs.emplace(view.name.substr(2), tape.leaf(tensor_of<float>(file, view.name)));
  const auto y = method.outputs(base, x, inputs);
  auto objective = sum(mul(y.shared, tape.constant(in.dy[0])));
  check.compare("y", values_of(y.shared.value()), graft::io::to_f64(file.at("y")));
  for (const auto& [task, output] : y.tasks) {
    check.compare("y." + task, values_of(output.value()), graft::io::to_f64(file.at("y." + task)));
    objective =
        add(objective, sum(mul(output, tape.constant(tensor_of<float>(file, "dy." + task)))));
  }
  tape.backward(objective);
  check.compare("dx", values_of(x.grad()), graft::io::to_f64(file.at("dx")));
  for (const auto& [task, input] : inputs)
    check.compare("dx." + task, values_of(input.grad()), graft::io::to_f64(file.at("dx." + task)));
  compare_gradients(check, gradients_of(model, {"default"}), file, "grad.",
                    vanishing_gradients(c.json));
  for (const auto& [task, output] : y.tasks)
    if (const auto* view = file.find("merged_weight." + task))
      check.compare(view->name, values_of(merge_linear(base, method.task(task)).dense_weight()),
                    graft::io::to_f64(*view), std::max(check.tolerance(), 1e-5));
  check_round_trip(check, toy, model, file, in, false);
  const bool merges = c.json.at("merge").at("supported").get<bool>();
  if (merges && file.find("merged_weight") != nullptr) {
    const auto unmerged = forward(toy, in);
    model.merge();
    check.compare("merged_weight", values_of(toy.frozen("weight")),
                  graft::io::to_f64(file.at("merged_weight")), std::max(check.tolerance(), 1e-5));
    check.compare("merged y", forward(toy, in), unmerged, std::max(check.tolerance(), 1e-5));
    model.unmerge();
    check.require(forward(toy, in) == unmerged, "unmerged, the output has other bits");
  } else {
    bool refused = false;
    try {
      model.merge();
    } catch (const graft::ValueError&) {
      refused = true;
    }
    check.require(refused == !merges, "it merges though the case says that it cannot");
  }
}

void run_triadapt_layer(Checker& check, const Case& c) {
  LayerSteps<float> steps;
  steps.after = [&](AdapterModel& model, const SafetensorsFile& file) {
    const auto& method =
        *graft::method_of<graft::TriAdaptLoRA>(model.at("default").parts().front().part.get());
    graft::Tape tape({.gradients = false});
    if (const auto* core = file.find("core"))
      check.compare("core", values_of(method.core(tape).value()), graft::io::to_f64(*core));
    for (const std::string normaliser : {"blocks", "rank", "sqrt_params"})
      if (file.find("norm_" + normaliser) != nullptr)
        check.compare("norm_" + normaliser, std::vector<double>{method.core_norm(normaliser)},
                      graft::io::to_f64(file.at("norm_" + normaliser)));
    check_auxiliary<float>(check, model, file, [&](auto& t) { return model.auxiliary_loss(t); });
  };
  run_layer<float>(check, c, steps);
}

void run_triadapt_growth(Checker& check, const Case& c) {
  using Method = graft::BasicTriAdaptLoRA<double>;
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::TriAdaptLoRAConfig>(c);
  const double rate = config_of(c).at("lr");
  const auto names = config_of(c).at("target_modules").get<std::vector<std::string>>();
  std::vector<std::unique_ptr<Method>> modules;
  std::vector<Method*> parts;
  std::vector<Index> drawn(names.size(), 0);
  for (const auto& name : names) {
    const auto d = get(file, "D." + name);
    modules.push_back(std::make_unique<Method>(standalone<Method>(config, d.dim(1), d.dim(2))));
    parts.push_back(modules.back().get());
    parts.back()->named(0)[0].second.assign(get(file, concat("initial.", name, ".A")));
    parts.back()->named(0)[1].second.assign(get(file, concat("initial.", name, ".B")));
  }
  graft::TriAdaptGrowth<double> growth(config, parts);
  const auto& trace = c.json.at("trace");
  const Index total = config.total_steps.value_or(static_cast<Index>(trace.size()));
  for (const auto& entry : trace) {
    const Index t = entry.at("step").get<Index>();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      backward(*parts[i], part(get(file, "D." + names[i]), t - 1));
      std::vector<graft::BasicParameter<double>> all;
      for (const auto& tensor : parts[i]->tensors()) all.push_back(tensor.parameter);
      descend(all, rate);
    }
    std::vector<std::string> grown;
    for (const auto i : growth.after_step(t, total)) {
      grown.push_back(names[i]);
      const Index k = drawn[i]++;
      parts[i]->grow(part(get(file, concat("draw.", names[i], ".A")), k),
                     part(get(file, concat("draw.", names[i], ".B")), k));
    }
    check.require(grown == entry.at("grown").get<std::vector<std::string>>(),
                  concat("step ", t, " grows other modules"));
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const std::string& name = names[i];
      check.require(parts[i]->rank() == entry.at("ranks").at(name).get<Index>(),
                    concat("step ", t, ": another rank of ", name));
      if (entry.contains("scores") && !growth.scores().empty())
        check.require(
            std::abs(growth.scores()[i] - entry.at("scores").at(name).get<double>()) < 1e-4,
            concat("step ", t, ": another score of ", name));
      graft::BasicTape<double> tape({.gradients = false});
      compare(check, concat("step", t, ".core.", name), parts[i]->core(tape).value(),
              get(file, concat("step", t, ".core.", name)));
      compare(check, concat("delta_weight.", name),
              update_of(*parts[i], parts[i]->out_features(), parts[i]->in_features()),
              part(get(file, "delta_weight." + name), t - 1));
    }
  }
  for (std::size_t i = 0; i < parts.size(); ++i)
    for (const auto& tensor : parts[i]->tensors())
      compare(check, concat("final.", names[i], ".", tensor.name), tensor.parameter.value(),
              get(file, concat("final.", names[i], ".", tensor.name)));
}

void run_increlora_layer(Checker& check, const Case& c) {
  LayerSteps<float> steps;
  const auto method_in = [](AdapterModel& model) {
    return graft::method_of<graft::IncreLoRA>(model.at("default").parts().front().part.get());
  };
  steps.before = [&](AdapterModel& model, const SafetensorsFile&) {
    method_in(model)->collect(true);
  };
  steps.after = [&](AdapterModel& model, const SafetensorsFile& file) {
    auto& method = *method_in(model);
    const double n = static_cast<double>(method.in_features() * method.out_features()),
                 score = method.score();
    const bool mean = config_of(c).value("score", "sqrt") == "mean";
    if (const auto* expected = file.find("score"))
      check.compare("score", std::vector<double>{mean ? score * std::sqrt(n) : score},
                    graft::io::to_f64(*expected));
    if (const auto* expected = file.find("score_mean"))
      check.compare("score_mean", std::vector<double>{mean ? score : score / std::sqrt(n)},
                    graft::io::to_f64(*expected));
    method.collect(false);
    check_auxiliary<float>(check, model, file, [&](auto& t) { return model.auxiliary_loss(t); });
  };
  run_layer<float>(check, c, steps);
}

/// One side of all components, one after the other.
Matrix joined(const graft::BasicIncreLoRA<double>& method, char side) {
  const Index ranks = method.components_rank(), width = side == 'A'   ? method.in_features()
                                                        : side == 'E' ? 1
                                                                      : method.out_features();
  auto whole = Matrix::empty(side == 'B' ? Shape{width, ranks} : Shape{ranks, width});
  Index first = 0;
  for (const auto& component : method.components()) {
    const auto& p = side == 'A' ? component.a : side == 'E' ? component.e : component.b;
    const Index r = component.a.shape()[0];
    for (Index k = 0; k < r; ++k)
      for (Index j = 0; j < width; ++j)
        (side == 'B' ? whole(j, first + k) : whole(first + k, j)) =
            side == 'B' ? p.value()(j, k) : p.value()(k, j);
    first += r;
  }
  return whole;
}

void run_increlora_growth(Checker& check, const Case& c) {
  using Method = graft::BasicIncreLoRA<double>;
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::IncreLoRAConfig>(c);
  const double rate = config_of(c).at("lr");
  const auto names = config_of(c).at("target_modules").get<std::vector<std::string>>();
  std::vector<std::unique_ptr<Method>> modules;
  std::vector<Index> drawn(names.size(), 0);
  for (const auto& name : names) {
    const auto d = get(file, "D." + name);
    modules.push_back(std::make_unique<Method>(standalone<Method>(config, d.dim(1), d.dim(2))));
    const auto& first = modules.back()->components().front();
    first.a.assign(get(file, concat("initial.", name, ".A")));
    first.e.assign(get(file, concat("initial.", name, ".E")));
    first.b.assign(get(file, concat("initial.", name, ".B")));
  }
  graft::IncreLoRAGrowth growth(config, names.size());
  for (const auto& entry : c.json.at("trace")) {
    const Index t = entry.at("step").get<Index>();
    std::vector<Index> ranks;
    std::vector<double> scores;
    std::vector<std::vector<graft::BasicParameter<double>>> moving(names.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
      auto& method = *modules[i];
      method.collect(true);
      backward(method, part(get(file, "D." + names[i]), t));
      ranks.push_back(method.rank());
      if (!growth.stopped()) scores.push_back(method.score());
      for (const auto& tensor : method.tensors())
        if (tensor.parameter && tensor.parameter.trainable()) moving[i].push_back(tensor.parameter);
    }
    const auto decision = growth.step(t, ranks, scores);
    std::vector<std::string> grown;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const bool grows = std::count(decision.grown.begin(), decision.grown.end(), i) > 0;
      if (grows) {
        grown.push_back(names[i]);
        modules[i]->activate();
      }
      if (grows || decision.first_reserve) {
        const Index k = drawn[i]++;
        modules[i]->add_reserve(part(get(file, concat("draw.", names[i], ".A")), k),
                                part(get(file, concat("draw.", names[i], ".B")), k));
      }
      if (decision.stops) modules[i]->silence();
      descend(moving[i], rate);
    }
    check.require(grown == entry.at("grown").get<std::vector<std::string>>(),
                  concat("step ", t, " grows other modules"));
    check.require(growth.stopped() == entry.at("stopped").get<bool>(),
                  concat("step ", t, " stops differently"));
    for (std::size_t i = 0; i < names.size(); ++i) {
      const std::string& name = names[i];
      const auto& method = *modules[i];
      check.require(method.rank() == entry.at("ranks").at(name).get<Index>() &&
                        method.components_rank() == entry.at("components").at(name).get<Index>(),
                    concat("step ", t, ": another rank of ", name));
      if (entry.contains("score") && entry.at("score").contains(name) && !scores.empty())
        check.require(
            std::abs(scores[i] - entry.at("score").at(name).get<double>()) < 1e-4 * (1 + scores[i]),
            concat("step ", t, ": another score of ", name));
      for (const char side : {'A', 'E', 'B'}) {
        const std::string key = concat("step", t, ".", side, ".", name);
        compare(check, key, joined(method, side), get(file, key));
      }
    }
  }
  for (std::size_t i = 0; i < names.size(); ++i)
    compare(check, "delta_weight." + names[i],
            update_of(*modules[i], modules[i]->out_features(), modules[i]->in_features()),
            get(file, "delta_weight." + names[i]));
}

void run_aslora_merging(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::ASLoRAConfig>(c);
  const double rate = config_of(c).at("lr");
  Index layers = 0;
  while (file.find(concat("initial.B.", layers)) != nullptr) ++layers;
  const auto first = get(file, "initial.B.0");
  graft::ASLoRAType<double> type(Matrix::zeros({first.cols(), 1}), first.rows(), layers);
  for (Index k = 0; k < layers; ++k)
    type.b()[static_cast<std::size_t>(k)].assign(get(file, concat("initial.B.", k)));
  const auto& trace = c.json.at("trace");
  for (const auto& entry : trace) {
    const Index t = entry.at("step").get<Index>();
    for (Index k = 0; k < layers; ++k) {
      const auto g = type.group_of_layer()->values[static_cast<std::size_t>(k)];
      const auto& b = type.b()[static_cast<std::size_t>(g)];
      const auto gradient = part(get(file, concat("grad.", k)), t - 1);
      if (!b.grad()) b.mutable_grad() = Matrix::zeros(b.shape());
      for (Index i = 0; i < gradient.size(); ++i) b.grad()[i] += gradient[i];
    }
    type.step(rate, config.weight_decay);
    bool merged = false;
    if (type.groups() > config.groups_at_the_end(layers) &&
        config.merges_after(t, static_cast<Index>(trace.size()), layers)) {
      const auto [i, j] = type.closest(config.pairs == "adjacent");
      type.merge(i, j);
      merged = true;
    }
    check.require(merged == !entry.at("merged").is_null(),
                  concat("step ", t, " merges differently"));
    check.require(type.group_of_layer()->values ==
                      entry.at("group_of_layer").get<std::vector<std::int64_t>>(),
                  concat("step ", t, ": other groups"));
    for (std::size_t g = 0; g < type.b().size(); ++g) {
      compare(check, concat("B.", g), type.b()[g].value(), get(file, concat("step", t, ".B.", g)));
      compare(check, concat("m.", g), type.moments()[g].first,
              get(file, concat("step", t, ".m.", g)));
      compare(check, concat("v.", g), type.moments()[g].second,
              get(file, concat("step", t, ".v.", g)));
    }
  }
}

/// Independent layers over looped blocks; the case holds the blocks, not the layers they come from.
void run_recursive_layer(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  const auto adapter = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const auto config = read_config_of<graft::RelaxedRecursiveConfig>(c);
  Index layers = 0;
  while (file.find(concat("x.", layers)) != nullptr) ++layers;
  const Index blocks = config.blocks(layers);
  const auto block = [&](Index j, const char* tensor) {
    const std::string name = concat("shared.", j, ".proj.", tensor);
    return file.find(name) != nullptr ? tensor_of<float>(file, name)
                                      : tensor_of<float>(adapter, "base_model.model." + name);
  };
  std::vector<std::unique_ptr<graft::LinearSite>> sites;
  graft::SiteTable table;
  for (Index k = 0; k < layers; ++k) {
    sites.push_back(std::make_unique<graft::LinearSite>(
        concat("layers.", k, ".proj"),
        graft::DenseLinear(block(k % blocks, "weight"), block(k % blocks, "bias"))));
    table.linear.push_back(sites.back().get());
  }
  const auto run = [&](graft::Tape& tape, std::vector<graft::Var>* leaves) {
    std::vector<graft::Var> outputs;
    for (Index k = 0; k < layers; ++k) {
      const auto x = tape.leaf(tensor_of<float>(file, concat("x.", k)));
      if (leaves != nullptr) leaves->push_back(x);
      outputs.push_back((*sites[static_cast<std::size_t>(k)])(x));
    }
    return outputs;
  };
  const auto check_y = [&](const std::string& name) {
    graft::Tape tape({.gradients = false, .training = false});
    const auto y = run(tape, nullptr);
    std::vector<float> all;
    for (Index k = 0; k < layers; ++k) {
      const auto& value = y[static_cast<std::size_t>(k)].value();
      check.compare(concat(name, ".", k), values_of(value),
                    graft::io::to_f64(file.at(concat(name, ".", k))));
      all.insert(all.end(), value.begin(), value.end());
    }
    return all;
  };
  check_y("y_base");
  AdapterModel model(table, methods<float>());
  model.load("default", c.folder);
  const auto before = check_y("y");
  graft::Tape tape;
  std::vector<graft::Var> leaves;
  const auto y = run(tape, &leaves);
  graft::Var objective;
  for (Index k = 0; k < layers; ++k) {
    const auto term = sum(mul(y[static_cast<std::size_t>(k)],
                              tape.constant(tensor_of<float>(file, concat("dy.", k)))));
    objective = objective ? add(objective, term) : term;
  }
  tape.backward(objective);
  for (Index k = 0; k < layers; ++k)
    check.compare(concat("dx.", k), values_of(leaves[static_cast<std::size_t>(k)].grad()),
                  graft::io::to_f64(file.at(concat("dx.", k))));
  compare_gradients(check, gradients_of(model, {"default"}), file, "grad.");
  const ScratchFolder scratch;
  model.save("default", scratch.path);
  model.remove("default");
  model.load("default", scratch.path);
  check.require(check_y("y") == before, "saved and loaded again, the output has other bits");
  model.merge();
  for (Index k = 0; k < layers; ++k)
    check.compare(concat("merged ", k),
                  values_of(sites[static_cast<std::size_t>(k)]->base().dense_weight()),
                  graft::io::to_f64(file.at(concat("merged.layers.", k, ".proj.weight"))),
                  std::max(check.tolerance(), 1e-5));
  check_y("y");
  model.unmerge();
  check.require(check_y("y") == before, "unmerged, the output has other bits");
}

void run_recursive_init(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::RelaxedRecursiveConfig>(c);
  std::vector<Matrix> weights, biases;
  const bool biased = file.find("bias.0") != nullptr;
  while (file.find(concat("weight.", weights.size())) != nullptr) {
    if (biased) biases.push_back(get(file, concat("bias.", weights.size())));
    weights.push_back(get(file, concat("weight.", weights.size())));
  }
  const Index layers = static_cast<Index>(weights.size()), blocks = config.blocks(layers);
  for (const std::string init : {"average", "stepwise", "lower"}) {
    std::vector<Matrix> shared;
    for (Index j = 0; j < blocks; ++j) {
      shared.push_back(graft::recursive_block(weights, j, blocks, init));
      compare(check, "shared_weight", shared.back(), get(file, concat(init, ".shared_weight.", j)));
      if (biased)
        compare(check, "shared_bias", graft::recursive_block(biases, j, blocks, init),
                get(file, concat(init, ".shared_bias.", j)));
    }
    for (Index k = 0; k < layers; ++k) {
      const auto& w = weights[static_cast<std::size_t>(k)];
      const auto& from = shared[static_cast<std::size_t>(k % blocks)];
      const auto [b, a] = graft::recursive_factors(w, from, config.rank);
      const auto update = product(b, a);
      double error = 0, size = 0;
      for (Index i = 0; i < w.size(); ++i) {
        error += (w[i] - from[i] - update[i]) * (w[i] - from[i] - update[i]);
        size += w[i] * w[i];
      }
      const auto expected = get(file, concat(init, ".BA.", k));
      compare(check, concat(init, ".BA.", k), update, expected);
      const double found = std::sqrt(error), want = get(file, concat(init, ".error.", k))[0];
      check.require(std::abs(found - want) <= 1e-5 * std::max(want, std::sqrt(size)),
                    concat(init, ": another error of layer ", k));
    }
  }
}

/// Name of a frozen tensor of the layer at a path; a lone layer owns plain names.
std::string frozen(const SafetensorsFile& file, const std::string& path, const char* tensor) {
  return file.find(tensor) != nullptr ? tensor : concat(path, ".", tensor);
}

void run_pela(Checker& check, const Case& c) {
  LayerSteps<float> steps;
  steps.after = [&](AdapterModel& model, const SafetensorsFile& file) {
    const auto config = read_config_of<graft::PELAConfig>(c);
    const auto& parts = model.at("default").parts();
    check_auxiliary<float>(check, model, file, [&](graft::Tape& tape) {
      // The module's layers one after the other, tanh between them.
      std::vector<graft::Var> student;
      std::vector<graft::Tensor> teacher;
      graft::Var h = tape.constant(tensor_of<float>(file, "x")), t = h;
      for (const auto& placed : parts) {
        const graft::DenseLinear layer(tensor_of<float>(file, frozen(file, placed.path, "weight")),
                                       tensor_of<float>(file, frozen(file, placed.path, "bias")));
        if (!student.empty()) {
          h = tanh(h);
          t = tanh(t);
        }
        h = graft::method_of<graft::PELA>(placed.part.get())->apply(layer, h);
        t = linear(layer, t);
        student.push_back(h);
        teacher.push_back(t.value());
      }
      return add(model.auxiliary_loss(tape), graft::pela_feature_loss(student, teacher, config));
    });
    for (const auto& placed : parts) {
      const graft::BasicDenseLinear<double> layer{get(file, frozen(file, placed.path, "weight"))};
      graft::StandaloneInit<double> init(0);
      const graft::BasicPELA<double> fresh(config, graft::site_info(layer), init.context());
      const auto found = product(fresh.second().value(), fresh.first().value());
      for (const auto& name : {"init_product." + placed.path, std::string("init_product")})
        if (file.find(name) != nullptr) compare(check, name, found, get(file, name));
      if (c.json.contains("ranks"))
        check.require(fresh.first().shape()[0] == c.json.at("ranks").at(placed.path).get<Index>(),
                      "another rank of " + placed.path);
    }
  };
  run_layer<float>(check, c, steps);
}

const Handler rank_procedure_handlers[] = {
    {{.kind = "procedure", .peft_type = "LORA", .has = "groups"}, run_lora_plus},
    {{.kind = "procedure", .peft_type = "ADALORA"}, run_adalora},
    {{.kind = "procedure", .peft_type = "GRADNORMLORP"}, run_gradnorm},
    {{.kind = "transform", .peft_type = "PORTLLM"}, run_portllm},
    {{.kind = "transform", .peft_type = "DSEE", .has = "v0"}, run_dsee_support},
    {{.kind = "transform", .peft_type = "DSEE", .has = "head_scale"}, run_dsee_pruning},
    {{.kind = "transform", .peft_type = "HIPA"}, run_hipa_loss},
    {{.kind = "layer", .peft_type = "PSEC"}, run_psec},
    {{.kind = "layer", .peft_type = "MTLORA"}, run_mtlora},
    {{.kind = "layer", .peft_type = "TRIADAPTLORA"}, run_triadapt_layer},
    {{.kind = "procedure", .peft_type = "TRIADAPTLORA"}, run_triadapt_growth},
    {{.kind = "layer", .peft_type = "INCRELORA"}, run_increlora_layer},
    {{.kind = "procedure", .peft_type = "INCRELORA"}, run_increlora_growth},
    {{.kind = "procedure", .peft_type = "ASLORA"}, run_aslora_merging},
    {{.kind = "layer", .peft_type = "RELAXED_RECURSIVE"}, run_recursive_layer},
    {{.kind = "transform", .peft_type = "RELAXED_RECURSIVE"}, run_recursive_init},
    {{.kind = "layer", .peft_type = "PELA"}, run_pela},
};

}  // namespace
}  // namespace conformance
