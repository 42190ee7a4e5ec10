#pragma once

#include <string>
#include <vector>

#include "graft/adapters/config_value.hpp"
#include "graft/layers/sites.hpp"

namespace CLI {
class App;
}

namespace cli {

/// The options of finetune that say which adapter is made.
struct AdapterOptions {
  std::string method = "lora", adapter_config, target_modules = "all-linear", exclude_modules, init,
              bias, layers;
  std::vector<std::string> fields;
  graft::Index rank = 16;
  graft::Index virtual_tokens = 20, adapter_layers = 1;
  double alpha = 32, dropout = 0;
  bool rslora = false;
};
void add_adapter_options(CLI::App& command, AdapterOptions& options);

/// False for a method that has several ranks by default, one a level or one a name.
bool has_one_rank(const graft::ConfigValue::Map& defaults);

/// Configuration of the adapter, and which options had no part in it.
struct AdapterChoice {
  graft::ConfigValue::Map config;
  std::vector<std::string> unused;
};

/// Puts the options into the fields that the method has. "all-linear" becomes the list of names
/// that it means in the model, as PEFT saves it. @param model_name  for the configuration
/// @throws ValueError for an option that was given and that the method has no field for
AdapterChoice choose_adapter(const AdapterOptions& options, const CLI::App& command,
                             const std::string& model_name,
                             const graft::BasicSiteTable<float>& sites);

/// Which options set the fields of the method that a message names: "; to set: --rank, --set
/// group_size=VALUE"; empty if it names none, or options.
std::string setting_hint(const std::string& message, const graft::ConfigValue::Map& config);

/// Adds modules that are trained whole beside the adapter.
void train_whole(graft::ConfigValue::Map& config, const std::vector<std::string>& modules);

}  // namespace cli
