// Cases of Kronecker methods that are no layer or model.
#include "graft/adapters/kronecker/kadaptation.hpp"
#include "graft/adapters/kronecker/soka.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

/// sigma.<name> -> out.rank.<name>: by energy, by the elbow, the chosen one.
void soka_ranks(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  graft::SoKAConfig config;
  const auto map = graft::read_config_file(c.folder / "adapter_config.json");
  graft::ConfigReader reader(map);
  config.fields(reader);
  for (const auto& view : file.tensors()) {
    if (!view.name.starts_with("sigma.")) continue;
    const auto rank = graft::soka_rank(graft::io::to_f64(view), config.energy, config.r_max);
    const std::string name = "out.rank." + view.name.substr(6);
    check.compare(
        name,
        std::vector<double>{static_cast<double>(rank.energy), static_cast<double>(rank.elbow),
                            static_cast<double>(rank.chosen)},
        graft::io::to_f64(file.at(name)));
  }
}
const Handler soka({.kind = "procedure", .peft_type = "SOKA"}, soka_ranks);

void kadaptation_selection(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = config_of(c);
  std::vector<double> dimensions;
  for (int i = 0;; ++i) {
    const auto features = tensor_of<double>(file, concat("features.", i));
    if (!features) break;
    dimensions.push_back(
        graft::local_intrinsic_dimension(features, config.at("neighbours").get<Index>()));
  }
  check.compare("dimension", dimensions, graft::io::to_f64(file.at("out.dimension")));
  check.require(graft::smallest_first(dimensions) == graft::io::to_i64(file.at("out.order")),
                "another order of the modules");
}
const Handler selection({.kind = "procedure", .peft_type = "KADAPTATION"}, kadaptation_selection);

/// Layer cases in training mode that give the dropout masks of H.
void kadaptation_layer(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  bool masked = false;
  for (const auto& view : file.tensors()) masked = masked || view.name.starts_with("h_mask.");
  const auto set_masks = [&](graft::AdapterModel& model) {
    for (const auto& placed : model.at("default").parts())
      if (auto* method = graft::method_of<graft::KAdaptation>(placed.part.get()))
        if (const auto mask = tensor_of<float>(file, "h_mask." + placed.path))
          method->set_h_mask(mask);
  };
  if (masked)
    run_layer<float>(check, c, {.before = {}, .after = {}, .prepare = set_masks, .training = true});
  else
    run_layer<float>(check, c);
}
const Handler kadaptation({.kind = "layer", .peft_type = "KADAPTATION"}, kadaptation_layer);

}  // namespace
}  // namespace conformance
