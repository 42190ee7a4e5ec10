#pragma once

#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "graft/compose/combine.hpp"

namespace graft::inline v0_1 {

/// A new LoRA `name` that approximates what adapter `source` does to the weights: the truncated SVD
/// of ΔW = W' − W at each layer, with B = U S, A = Vᵀ and scaling one. For any method that merges
/// into weights; biases that it changes become LoRA biases, modules that it trains whole stay what
/// they are. The active adapters stay active.
/// `choice`: a rank for all layers, or the share of Σσ² to keep at each (then ranks differ), or
/// neither: everything that is not rounding.
/// @throws ValueError if the adapter cannot be merged, changes norms, or a rank exceeds a layer's
template <std::floating_point T>
AdapterSet<T>& convert_to_lora(BasicAdapterModel<T>& model, const std::string& source,
                               const std::string& name, const RankChoice& choice = {}) {
  choice.validate();
  const auto& info = model.at(source).info();
  const auto whole = detail::config_list(model.at(source).given_config(), "modules_to_save");
  if (choice.rank > 0)
    for (const auto* site : model.sites().linear)
      for (const auto& named : site->adapters())
        if (named.name == source && !BasicAdapterModel<T>::inside(site->path(), whole) &&
            choice.rank > std::min(site->in_features(), site->out_features()))
          throw ValueError(concat("convert_to_lora: rank ", choice.rank, " of ", info.peft_type,
                                  " at ", site->path(), ", which has ",
                                  std::min(site->in_features(), site->out_features())));
  CombineOptions options;
  options.svd_rank = choice.rank;
  options.energy = choice.energy;
  // PEFT gives MiSS the rank that it has, whatever is asked for.
  if (const auto& config = model.at(source).given_config();
      info.peft_type == "MISS" && detail::config_text(config, "init_weights") != "bat") {
    options.svd_rank = config.contains("r") ? static_cast<Index>(config.at("r").number()) : 64;
    options.energy = 0;
  }
  return add_weighted_adapter(model, {source}, {1.0}, name, options);
}

/// An adapter whose making rewrote the frozen weights (PiSSA, OLoRA, CorDA, LoRA-GA), as a LoRA for
/// the weights as they were: ΔW = s (B A − B₀ A₀), A' = [A; A₀], B' = [B, −B₀], twice the rank,
/// alpha such that the scaling stays. What PEFT does with path_initial_model_for_weight_conversion.
/// `trained` and `initial` are the folders of the adapter after and before training; a PEFT folder
/// is written.
/// @throws IoError for files that cannot be read, ValueError if they do not belong together
inline void convert_to_original_weights(const std::filesystem::path& trained,
                                        const std::filesystem::path& initial,
                                        const std::filesystem::path& output) {
  auto config = read_config_file(trained / "adapter_config.json");
  if (detail::config_text(config, "peft_type") != "LORA")
    throw ValueError(concat((trained / "adapter_config.json").string(), ": peft_type is not LORA"));
  if (detail::config_flag(config, "use_dora"))
    throw ValueError("convert: an update with use_dora is no difference of products");
  const auto file = io::SafetensorsFile::open(trained / "adapter_model.safetensors");
  const auto start = io::SafetensorsFile::open(initial / "adapter_model.safetensors");
  // alpha' / (2 r) = alpha / r, alpha' / √(2 r) = alpha / √r.
  const double growth = detail::config_flag(config, "use_rslora") ? std::sqrt(2.0) : 2.0;
  const auto scaled = [](const ConfigValue& value, double factor) -> ConfigValue {
    const double result = value.number() * factor;
    if (result == std::floor(result) && std::abs(result) < 1e15)
      return static_cast<std::int64_t>(result);
    return result;
  };
  config["r"] = scaled(config.at("r"), 2);
  config["lora_alpha"] = scaled(config.at("lora_alpha"), growth);
  for (const auto& [field, factor] :
       {std::pair<const char*, double>{"rank_pattern", 2}, {"alpha_pattern", growth}})
    if (const auto it = config.find(field); it != config.end())
      if (auto* patterns = it->second.get_if<ConfigValue::Map>())
        for (auto& [pattern, value] : *patterns) value = scaled(value, factor);
  config["init_lora_weights"] = true;
  for (const char* field : {"eva_config", "corda_config", "lora_ga_config"})
    if (config.contains(field)) config[field] = nullptr;
  config["inference_mode"] = true;

  std::vector<io::TensorToWrite> tensors;
  std::vector<std::vector<float>> kept;
  kept.reserve(file.tensors().size());
  for (const auto& view : file.tensors()) {
    const bool a = view.name.ends_with("lora_A.weight") || view.name.ends_with("lora_embedding_A");
    const bool b = view.name.ends_with("lora_B.weight") || view.name.ends_with("lora_embedding_B");
    io::TensorToWrite item;
    item.name = view.name;
    item.shape.assign(view.shape.begin(), view.shape.end());
    item.dtype = io::DType::f32;
    auto values = io::to_f32(view);
    if (a || b) {
      const auto* before = start.find(view.name);
      if (before == nullptr || before->shape != view.shape)
        throw ValueError(concat(start.name(), ": no tensor ", view.name, " of the same shape"));
      const auto old = io::to_f32(*before);
      if (a) {
        values.insert(values.end(), old.begin(), old.end());
        item.shape[0] *= 2;
      } else {
        const std::size_t rank = static_cast<std::size_t>(view.shape[1]);
        const std::size_t rows = rank == 0 ? 0 : values.size() / rank;
        std::vector<float> wide;
        wide.reserve(2 * values.size());
        for (std::size_t i = 0; i < rows; ++i) {
          const auto offset = static_cast<std::ptrdiff_t>(i * rank);
          wide.insert(wide.end(), values.begin() + offset,
                      values.begin() + offset + static_cast<std::ptrdiff_t>(rank));
          for (std::size_t k = 0; k < rank; ++k) wide.push_back(-old[i * rank + k]);
        }
        values = std::move(wide);
        item.shape[1] *= 2;
      }
    }
    kept.push_back(std::move(values));
    item.data = std::as_bytes(std::span(kept.back()));
    tensors.push_back(std::move(item));
  }
  std::filesystem::create_directories(output);
  io::write_safetensors(output / "adapter_model.safetensors", tensors);
  const std::string text = io::json_text(config_json(config), 2) + "\n";
  io::write_file_atomically(output / "adapter_config.json", std::as_bytes(std::span(text)));
}

}  // namespace graft::inline v0_1
