// Cases of the low-rank family beside layers: first values, index tables,
// gradients.
#include "graft/adapters/low_rank/dylora.hpp"
#include "graft/adapters/low_rank/frozen_factors.hpp"
#include "graft/adapters/low_rank/mos.hpp"
#include "graft/adapters/low_rank/rosa.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using Matrix = BasicTensor<double>;
using graft::detail::product;

void run_asymmetric_init(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Index r = config_of(c).at("r").get<Index>();
  for (const char* name : {"weight", "random"}) {
    const auto w = tensor_of<double>(file, name);
    for (const bool right : {true, false}) {
      const auto rows = graft::detail::singular_rows(w, r, right);
      const std::string key = concat(name, right ? ".AtA" : ".BBt");
      check.compare(key, values_of(product(rows, rows, 1.0, true)),
                    values_of(tensor_of<double>(file, key)));
      auto unit = product(rows, rows, 1.0, false, true);
      check.compare("frame", values_of(unit), values_of(Matrix::identity(r)));
    }
  }
}

void run_precondition(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const Json config = config_of(c);
  const double s = config.at("lora_alpha").get<double>() / config.at("r").get<double>(),
               rate = config.at("lr");
  const auto get = [&](const char* name) { return tensor_of<double>(file, name); };
  const auto a = get("A"), b = get("B");
  // ∂L/∂B = s dyᵀ (x Aᵀ)
  const auto h = product(get("x"), a, s, false, true);
  const auto gradient = product(get("dy"), h, 1.0, true);
  check.compare("grad_B", values_of(gradient), values_of(get("grad_B")));
  const auto better = graft::lora_fa_gradient(gradient, a, s);
  check.compare("preconditioned", values_of(better), values_of(get("preconditioned_grad_B")));
  auto after = b.clone();
  for (Index i = 0; i < after.size(); ++i) after[i] -= rate * better[i];
  check.compare("B_after", values_of(after), values_of(get("B_after")));
  for (Index i = 0; i < after.size(); ++i) after[i] -= b[i];
  check.compare("change", values_of(product(after, a, s)), values_of(get("delta_weight_change")));
}

void run_mos_indices(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::MoSConfig>(c);
  Index layers = 0;
  while (file.find(concat("permutation_A.", layers)) != nullptr) ++layers;
  check.require(layers > 0, "no permutation");
  for (Index k = 0; k < layers; ++k)
    for (const char* side : {"A", "B"}) {
      const auto found = graft::mos_indices(
          config, k, layers,
          graft::io::to_i64(
              file.at(concat("permutation_", config.tie_pairs ? "A" : side, ".", k))));
      const std::string key = concat("index_", side, ".", k);
      check.require(found == graft::io::to_i64(file.at(key)), concat(key, " differs"));
    }
  check.add("indices", 0, 0, check.tolerance());
}

void run_rosa_mask(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  auto config = read_config_of<graft::RoSAConfig>(c);
  const auto x = tensor_of<double>(file, "x"), dy = tensor_of<double>(file, "dy");
  for (const std::string mode : {"mean_squared", "mean"}) {
    graft::RoSACollector<double> collector(dy.cols(), x.cols(), mode == "mean_squared");
    for (Index b = 0; b < x.dim(0); ++b) collector.see(part(x, b), part(dy, b));
    check.compare(mode + ".collected", values_of(collector.mean()),
                  values_of(tensor_of<double>(file, mode + ".collected")));
    const auto rows = graft::rosa_mask(collector.mean(), config.density);
    check.require(rows.offsets == graft::io::to_i64(file.at(mode + ".row_offs")),
                  mode + ".row_offs differs");
    check.require(rows.columns == graft::io::to_i64(file.at(mode + ".col_idx")),
                  mode + ".col_idx differs");
  }
  const Json agenda = c.json.value("agenda", Json::object());
  for (const auto& [schedule, steps] : agenda.items()) {
    config.schedule = schedule;
    config.validate();
    for (std::size_t t = 0; t < steps.size(); ++t) {
      const auto step = static_cast<Index>(t);
      std::vector<std::string> found;
      if (config.low_rank()) found.push_back("lora");
      if (config.collects(step)) found.push_back("grad_collection");
      if (config.has_sparse(step)) found.push_back("spa");
      check.require(found == steps.at(t).get<std::vector<std::string>>(),
                    concat("agenda of ", schedule, ", step ", t));
    }
  }
}

void run_dylora_layer(Checker& check, const Case& c) {
  LayerSteps<float> steps;
  steps.before = [&](graft::AdapterModel& model, const SafetensorsFile&) {
    for (const auto& placed : model.at("default").parts())
      if (auto* method = graft::method_of<graft::DyLoRA>(placed.part.get()))
        method->set_rank(c.json.at("rank").get<Index>());
  };
  run_layer<float>(check, c, steps);
}

void run_dylora_trace(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::DyLoRAConfig>(c);
  const double rate = config_of(c).at("lr"), decay = config_of(c).value("weight_decay", 0.0);
  const auto weight = tensor_of<double>(file, "weight");
  const graft::BasicDenseLinear<double> layer{Matrix(weight)};
  const graft::BasicDyLoRA<double> method(config, layer);
  method.a().assign(tensor_of<double>(file, "initial.A"));
  method.b().assign(tensor_of<double>(file, "initial.B"));
  graft::RowAdamW<double> rows, columns;
  const auto x = tensor_of<double>(file, "x"), dy = tensor_of<double>(file, "dy");
  const auto& trace = c.json.at("trace");
  for (std::size_t t = 0; t < trace.size(); ++t) {
    const Index rank = trace.at(t).at("rank").get<Index>(), step = static_cast<Index>(t);
    method.set_rank(rank);
    graft::BasicTape<double> tape;
    const auto in = tape.constant(part(x, step));
    const auto update = sub(method.apply(layer, in), linear(layer, in));
    check.compare(concat("update ", t), values_of(update.value()),
                  values_of(part(tensor_of<double>(file, "update_output"), step)));
    tape.backward(update, part(dy, step));
    const Index first = config.first_learning(rank);
    rows.step(method.a().value(), method.a().grad(), true, first, rank, rate, decay);
    columns.step(method.b().value(), method.b().grad(), false, first, rank, rate, decay);
    method.a().zero_grad();
    method.b().zero_grad();
    check.compare(concat("A ", t), values_of(method.a().value()),
                  values_of(part(tensor_of<double>(file, "A"), step)));
    check.compare(concat("B ", t), values_of(method.b().value()),
                  values_of(part(tensor_of<double>(file, "B"), step)));
  }
}

const Handler low_rank_handlers[] = {
    {{.kind = "procedure", .peft_type = "ROSA"}, run_rosa_mask},
    {{.kind = "layer", .peft_type = "DYLORA"}, run_dylora_layer},
    {{.kind = "procedure", .peft_type = "DYLORA"}, run_dylora_trace},
    {{.kind = "transform", .peft_type = "ASYMMETRIC_LORA"}, run_asymmetric_init},
    {{.kind = "transform", .peft_type = "LORA_FA"}, run_precondition},
    {{.kind = "transform", .peft_type = "MOS"}, run_mos_indices},
};

}  // namespace
}  // namespace conformance
