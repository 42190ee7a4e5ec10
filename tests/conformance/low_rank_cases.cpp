// Cases of the low-rank family beside layers: first values, index tables, gradients.
#include "graft/adapters/low_rank/frozen_factors.hpp"
#include "graft/adapters/low_rank/mos.hpp"
#include "graft/compose/config_json.hpp"
#include "handlers.hpp"

namespace conformance {
namespace {

using Matrix = BasicTensor<double>;
using graft::detail::product;

SafetensorsFile tensors_of(const Case& c) {
  return SafetensorsFile::open(c.folder / "case.safetensors");
}
Json config_of(const Case& c) { return graft::io::read_json(c.folder / "adapter_config.json"); }

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
  const auto map = graft::read_config_file(c.folder / "adapter_config.json");
  graft::MoSConfig config;
  graft::ConfigReader reader(map);
  config.fields(reader);
  Index layers = 0;
  while (file.find(concat("permutation_A.", layers)) != nullptr) ++layers;
  check.require(layers > 0, "no permutation");
  for (Index k = 0; k < layers; ++k)
    for (const char* side : {"A", "B"}) {
      const auto found = graft::mos_indices(
          config, k, layers, graft::io::to_i64(file.at(concat("permutation_", side, ".", k))));
      const std::string key = concat("index_", side, ".", k);
      check.require(found == graft::io::to_i64(file.at(key)), concat(key, " differs"));
    }
  check.add("indices", 0, 0, check.tolerance());
}

const Handler handlers[] = {
    {{.kind = "transform", .peft_type = "ASYMMETRIC_LORA"}, run_asymmetric_init},
    {{.kind = "transform", .peft_type = "LORA_FA"}, run_precondition},
    {{.kind = "transform", .peft_type = "MOS"}, run_mos_indices},
};

}  // namespace
}  // namespace conformance
