// Cases of bottleneck adapters that are no plain layer or model.
#include "graft/adapters/bottleneck/sparse_adapter.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

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

const Handler vl_pet_cases({.kind = "layer", .peft_type = "VL_PET"}, vl_pet);

}  // namespace
}  // namespace conformance
