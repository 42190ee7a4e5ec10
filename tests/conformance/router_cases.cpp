// Mixtures of experts: layers with the inputs of their routers and auxiliary losses, blocks of
// several layers, and the procedures that choose experts.
#include "graft/adapters/mixtures/esft.hpp"
#include "graft/adapters/mixtures/mbc.hpp"
#include "graft/adapters/mixtures/mixlora.hpp"
#include "graft/adapters/mixtures/mola.hpp"
#include "graft/adapters/mixtures/mov.hpp"
#include "graft/adapters/mixtures/perft.hpp"
#include "graft/adapters/mixtures/sira.hpp"
#include "graft/adapters/mixtures/smore.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using graft::AdapterModel;
using graft::Tape;
using graft::Tensor;
using graft::Var;

/// Something that maps x to y and may leave an auxiliary loss behind.
struct Routed {
  std::function<Var(const Var&)> run;
  std::function<Var(Tape&)> loss;
  std::map<std::string, graft::Parameter> parameters;  ///< by the keys of files
  std::shared_ptr<graft::ForwardContext> context = std::make_shared<graft::ForwardContext>();
  bool training = false;
};

std::map<std::string, graft::Parameter> parameters_of(const AdapterModel& model) {
  std::map<std::string, graft::Parameter> list;
  for (const auto& [key, tensor] : model.at("default").tensors())
    if (tensor.parameter) list[key] = tensor.parameter;
  return list;
}

/// y, dx and the gradients of ⟨y, dy⟩, then the auxiliary losses with theirs.
void compare(Checker& check, const SafetensorsFile& file, const Routed& routed) {
  const auto x = tensor_of<float>(file, "x");
  if (const auto* mask = file.find("in.attention_mask"))
    for (const double m : graft::io::to_f64(*mask)) routed.context->token_mask.push_back(m != 0);
  routed.context->batch = x.rank() > 2 ? x.dim(0) : 1;
  const auto gradients = [&](const std::string& prefix) {
    std::map<std::string, Tensor> list;
    for (const auto& [key, p] : routed.parameters)
      list[key] = p.grad() ? p.grad().clone() : Tensor::zeros(p.shape());
    compare_gradients(check, list, file, prefix);
    for (const auto& [key, p] : routed.parameters) p.zero_grad();
  };
  {
    Tape tape({.training = routed.training});
    tape.set_context(routed.context);
    const auto leaf = tape.leaf(x);
    const auto y = routed.run(leaf);
    check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
    tape.backward(y, tensor_of<float>(file, "dy"));
    check.compare("dx", values_of(leaf.grad()), graft::io::to_f64(file.at("dx")));
    gradients("grad.");
  }
  double expected = 0;
  bool any = false;
  for (const auto& view : file.tensors())
    if (view.name.starts_with("aux.")) {
      expected += graft::io::to_f64(view).at(0);
      any = true;
    }
  if (!any) return;
  Tape tape({.training = routed.training});
  tape.set_context(routed.context);
  const auto leaf = tape.leaf(x);
  routed.run(leaf);
  const auto loss = routed.loss(tape);
  if (!loss) return check.fail("aux", "there is no auxiliary loss");
  check.compare("aux", values_of(loss.value()), std::vector<double>{expected});
  tape.backward(loss);
  if (const auto* view = file.find("dx_aux"))
    check.compare("dx_aux", values_of(leaf.grad()), graft::io::to_f64(*view));
  gradients("grad_aux.");
}

/// Saved and loaded again, the same comes out.
void check_saved(Checker& check, AdapterModel& model, const Routed& routed, const Tensor& x) {
  const auto output = [&] {
    Tape tape({.gradients = false, .training = false});
    tape.set_context(routed.context);
    return values_of(routed.run(tape.constant(x)).value());
  };
  const ScratchFolder scratch;
  const auto before = output();
  model.save("default", scratch.path);
  model.remove("default");
  model.load("default", scratch.path);
  check.require(output() == before, "saved and loaded again, the output has other bits");
}

/// One linear layer with routed experts.
void run_layer_of_experts(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  Toy<float> toy(c.json.value("module", Json()), file, single_target(c.folder));
  AdapterModel model(toy.sites(), methods<float>());
  auto& set = model.load("default", c.folder);
  Routed routed;
  routed.run = [&](const Var& x) {
    Var y = x;
    for (auto* site : toy.sites().linear) y = (*site)(y);
    return y;
  };
  routed.loss = [&](Tape& tape) { return model.auxiliary_loss(tape); };
  routed.parameters = parameters_of(model);
  for (const auto& placed : set.parts()) {
    if (auto* sira = graft::method_of<graft::SiRA>(placed.part.get());
        sira != nullptr && file.find("in.dropped") != nullptr) {
      sira->set_dropped(tensor_of<float>(file, "in.dropped"));
      routed.training = true;
    }
    if (auto* smore = graft::method_of<graft::SMoRE>(placed.part.get());
        smore != nullptr && file.find("in.noise.0") != nullptr) {
      std::vector<Tensor> noise;
      for (Index l = 0; file.find(concat("in.noise.", l)) != nullptr; ++l)
        noise.push_back(tensor_of<float>(file, concat("in.noise.", l)));
      smore->set_noise(noise);
      routed.training = true;
    }
  }
  if (c.json.value("mode", "") == "train") routed.training = true;
  compare(check, file, routed);
  check_saved(check, model, routed, tensor_of<float>(file, "x"));
}

/// A feed-forward block of the layers gate_proj, up_proj, down_proj or fc1, fc2 below "mlp".
void run_feed_forward(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check_known<float>(c);
  const std::string act = config_of(c).value("act_fn", "silu");
  const bool gated = file.find("mlp.gate_proj.weight") != nullptr;
  const auto site = [&](const std::string& path) {
    return graft::LinearSite(path, graft::DenseLinear(tensor_of<float>(file, path + ".weight"),
                                                      tensor_of<float>(file, path + ".bias")));
  };
  graft::LinearSite gate, up = site(gated ? "mlp.up_proj" : "mlp.fc1"),
                          down = site(gated ? "mlp.down_proj" : "mlp.fc2");
  graft::SiteTable table;
  table.linear = {&up, &down};
  if (gated) {
    gate = site("mlp.gate_proj");
    table.linear.insert(table.linear.begin(), &gate);
  }
  AdapterModel model(table, methods<float>());
  Routed routed;
  routed.run = [&](const Var& x) {
    if (!gated) return down(graft::detail::apply_activation(act, up(x)));
    return down(mul(graft::detail::apply_activation(act, gate(x)), up(x)));
  };
  routed.loss = [&](Tape& tape) { return model.auxiliary_loss(tape); };
  {
    Tape tape({.gradients = false, .training = false});
    const auto x = tape.constant(tensor_of<float>(file, "x"));
    const auto before = values_of(routed.run(x).value());
    model.load("default", c.folder);
    model.activate({});
    check.require(values_of(routed.run(x).value()) == before, "switched off, another output");
    model.activate({"default"});
  }
  routed.parameters = parameters_of(model);
  for (const auto& placed : model.at("default").parts())
    if (auto* router = dynamic_cast<graft::MixLoRARouter<float>*>(placed.part.get());
        router != nullptr && file.find("in.jitter") != nullptr) {
      router->set_jitter(tensor_of<float>(file, "in.jitter"));
      routed.training = true;
    }
  compare(check, file, routed);
  check_saved(check, model, routed, tensor_of<float>(file, "x"));
}

/// The scaling alone: x is the tensor that is scaled.
void run_mov(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const auto config = read_config_of<graft::MoVConfig>(c);
  const Index heads = config_of(c).value("num_attention_heads", Index{0});
  const auto x = tensor_of<float>(file, "x");
  const Index width = heads > 0 && x.rank() > 3 ? x.cols() * heads : x.cols();
  graft::StandaloneInit<float> init(0);
  const graft::MoV mov(config, width, heads, init.context());
  Routed routed;
  for (const auto& tensor : mov.tensors()) {
    const std::string key = "base_model.model." + tensor.name;
    tensor.parameter.assign(tensor_of<float>(saved, key));
    routed.parameters[key] = tensor.parameter;
  }
  routed.run = [&](const Var& z) { return mov.scaled(z); };
  compare(check, file, routed);
}

/// A frozen mixture of gated experts, softmax router, the k likeliest.
struct FrozenExperts {
  Tensor router, gate, up, down;
  Index k;
  bool renormalise;

  Var gates(const Var& u) const {
    const auto p =
        softmax(matmul(u, u.tape().constant(router), graft::Transpose::no, graft::Transpose::yes));
    return graft::route(p, k, renormalise).weights;
  }
  Var operator()(const Var& u, const Var& gates) const {
    const auto yes = graft::Transpose::yes, no = graft::Transpose::no;
    Var y;
    for (Index e = 0; e < gate.dim(0); ++e) {
      const auto matrix = [&](const Tensor& stacked) {
        auto w = Tensor::empty({stacked.dim(1), stacked.dim(2)});
        std::copy_n(stacked.data() + e * w.size(), w.size(), w.data());
        return u.tape().constant(w);
      };
      const auto inner =
          mul(silu(matmul(u, matrix(gate), no, yes)), matmul(u, matrix(up), no, yes));
      const auto term = mul(matmul(inner, matrix(down), no, yes), slice(gates, 1, e, 1));
      y = y ? add(y, term) : term;
    }
    return y;
  }
};

void run_perft(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  const auto config = read_config_of<graft::PerftConfig>(c);
  const FrozenExperts base{tensor_of<float>(file, "mlp.gate.weight"),
                           tensor_of<float>(file, "mlp.experts.gate_proj"),
                           tensor_of<float>(file, "mlp.experts.up_proj"),
                           tensor_of<float>(file, "mlp.experts.down_proj"),
                           config.base_top_k.value_or(2),
                           config.base_norm_topk_prob.value_or(true)};
  graft::StandaloneInit<float> init(0);
  const graft::Perft perft(config, base.router.cols(), 1, init.context());
  Routed routed;
  for (const auto& tensor : perft.tensors()) {
    const std::string key = "base_model.model.mlp." + tensor.name;
    tensor.parameter.assign(tensor_of<float>(saved, key));
    routed.parameters[key] = tensor.parameter;
  }
  routed.run = [&](const Var& x) {
    const auto u = reshape(x, {x.rows(), x.cols()});
    const auto gates = base.gates(u);
    const auto y = base(u, gates);
    return reshape(config.variant == "embedded" ? perft.embedded(u, y, gates) : perft.apply(u, y),
                   x.shape());
  };
  routed.loss = [&](Tape& tape) { return perft.auxiliary_loss(tape); };
  compare(check, file, routed);
}

void run_allocation(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Index blocks = config_of(c).value("num_hidden_layers", Index{12});
  for (const auto& view : file.tensors())
    if (view.name.starts_with("out."))
      check.compare(view.name, graft::expert_allocation(view.name.substr(4), blocks),
                    graft::io::to_f64(view), 0);
}

void run_esft(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto gates = tensor_of<float>(file, "in.gates");
  const auto compare_scores = [&](const std::string& kind, const Tensor& scores, double p) {
    check.compare("out." + kind + "_score", values_of(scores),
                  graft::io::to_f64(file.at("out." + kind + "_score")));
    std::vector<double> marks(static_cast<std::size_t>(scores.size()), 0.0);
    const auto selected = graft::esft::select_experts(scores, p);
    for (std::size_t l = 0; l < selected.size(); ++l)
      for (const Index e : selected[l])
        marks[l * static_cast<std::size_t>(scores.cols()) + static_cast<std::size_t>(e)] = 1;
    check.compare("out." + kind + "_selected", marks,
                  graft::io::to_f64(file.at("out." + kind + "_selected")), 0);
  };
  compare_scores("gate", graft::esft::gate_scores(gates), config.value("top_p_gate", 0.1));
  compare_scores("token", graft::esft::token_scores(gates, config.value("base_top_k", Index{2})),
                 config.value("top_p_token", 0.2));
}

void run_mbc(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const auto theta = tensor_of<float>(file, "in.theta");
  const auto expected = [&](const char* name) { return graft::io::to_f64(file.at(name)); };
  const auto sparse = graft::mbc::sparsified(theta, config.value("quantile", 0.5));
  check.compare("out.sparse", values_of(sparse), expected("out.sparse"));
  const auto likeness = graft::mbc::similarities(sparse, config.value("n_components", Index{64}));
  check.compare("out.similarity", values_of(likeness), expected("out.similarity"));
  std::vector<Index> centres;
  for (const auto row : ids_of(file, "in.initial_centres")) centres.push_back(row);
  const auto label = graft::mbc::clusters(likeness, centres);
  check.compare("out.labels", label, expected("out.labels"), 0);
  check.compare("out.cluster_mean",
                values_of(graft::mbc::cluster_means(theta, label, std::ssize(centres))),
                expected("out.cluster_mean"));
  const std::vector<Index> one(label.size(), 0);
  check.compare("out.uniform_mean", values_of(graft::mbc::cluster_means(theta, one, 1)),
                expected("out.uniform_mean"));
}

const Handler router_handlers[] = {
    {{.kind = "layer", .peft_type = "MOLA"}, run_layer_of_experts},
    {{.kind = "layer", .peft_type = "SIRA"}, run_layer_of_experts},
    {{.kind = "layer", .peft_type = "MOELORA"}, run_layer_of_experts},
    {{.kind = "layer", .peft_type = "MOLORA"}, run_layer_of_experts},
    {{.kind = "layer", .peft_type = "SMORE"}, run_layer_of_experts},
    {{.kind = "layer", .peft_type = "MIXLORA"}, run_feed_forward},
    {{.kind = "layer", .peft_type = "MOV"}, run_mov},
    {{.kind = "layer", .peft_type = "PERFT"}, run_perft},
    {{.kind = "procedure", .peft_type = "MOLA"}, run_allocation},
    {{.kind = "procedure", .peft_type = "ESFT"}, run_esft},
    {{.kind = "procedure", .peft_type = "MBC"}, run_mbc},
};

}  // namespace
}  // namespace conformance
