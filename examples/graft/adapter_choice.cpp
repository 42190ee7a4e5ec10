#include "adapter_choice.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <map>

#include "options.hpp"
#include "session.hpp"

namespace cli {
namespace {

using graft::concat;
using graft::ConfigValue;
using graft::io::Json;

bool is_pattern(const std::string& text) {
  return text.find_first_of("*+?()[]{}|^$\\") != std::string::npos;
}

/// Regular expressions stay texts, names separated by commas become a list, and so does
/// "all-linear", whose names come from the model.
ConfigValue target_value(const std::string& text, const graft::BasicSiteTable<float>& sites) {
  if (is_pattern(text)) return text;
  ConfigValue::List list;
  if (text == "all-linear") {
    for (const auto* site : sites.linear) {
      if (!site->conv.kernel.empty() || sites.info.is_output_layer(site->path())) continue;
      const ConfigValue name(std::string(graft::last_part(site->path())));
      if (std::find(list.begin(), list.end(), name) == list.end()) list.push_back(name);
    }
  } else {
    for (const auto& name : split(text, ',')) list.emplace_back(name);
  }
  return list;
}

ConfigValue layer_list(const std::string& text) {
  ConfigValue::List list;
  for (const auto& part : split(text, ',')) {
    const auto dash = part.find('-');
    const std::string first = part.substr(0, dash);
    const std::string last = dash == std::string::npos ? first : part.substr(dash + 1);
    for (const auto& number : {first, last})
      if (number.empty() || number.size() > 6 ||
          number.find_first_not_of("0123456789") != std::string::npos)
        throw graft::ValueError(
            concat("--layers: '", part, "' is no layer number and no range of them"));
    for (long layer = std::stol(first); layer <= std::stol(last); ++layer) list.emplace_back(layer);
  }
  return list;
}

ConfigValue parsed(const std::string& text) {
  const auto json = Json::parse(text, nullptr, false);
  return json.is_discarded() ? ConfigValue(text) : graft::config_value(json);
}

}  // namespace

bool has_one_rank(const ConfigValue::Map& defaults) {
  const auto it = defaults.find("r");
  if (it == defaults.end()) return true;
  const auto* list = it->second.get_if<ConfigValue::List>();
  return it->second.get_if<ConfigValue::Map>() == nullptr && (list == nullptr || list->size() == 1);
}

AdapterChoice choose_adapter(const AdapterOptions& s, const CLI::App& command,
                             const std::string& model_name,
                             const graft::BasicSiteTable<float>& sites) {
  AdapterChoice choice;
  auto& config = choice.config;
  const bool from_file = !s.adapter_config.empty();
  std::string type = s.method;
  for (char& c : type) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const bool dora = type == "dora", rslora = type == "rslora";
  type = dora || rslora ? "LORA" : method_type(s.method);
  if (from_file) {
    config = graft::read_config_file(s.adapter_config);
    const auto it = config.find("peft_type");
    const auto* name = it == config.end() ? nullptr : it->second.get_if<std::string>();
    if (name == nullptr)
      throw graft::IoError(concat(s.adapter_config, ": field 'peft_type' is missing"));
    if (given(command, "method") && methods().at(*name).info.peft_type != type)
      throw graft::ValueError(
          concat("--method: ", s.method, ", but ", s.adapter_config, " is for ", *name));
    type = methods().at(*name).info.peft_type;
    choice.unused.push_back("method");
  } else {
    config["peft_type"] = type;
  }
  const auto& defaults = methods().at(type).defaults;
  // An option that the method has no field for is an error if it was asked for, else it plays no
  // part.
  const auto set = [&](const char* option, std::initializer_list<const char*> keys,
                       const ConfigValue& value) {
    const bool asked = given(command, option);
    bool known = false;
    if (asked || !from_file)
      for (const char* key : keys)
        if (defaults.contains(key)) {
          config[key] = value;
          known = true;
        }
    if (asked && !known)
      throw graft::ValueError(concat("--", option, ": method ", type, " has no such setting"));
    if (!known) choice.unused.push_back(option);
  };
  // OFT has a size of blocks in place of a rank by default, and takes one of the two.
  const bool one_rank = has_one_rank(defaults);
  if ((type != "OFT" && one_rank) || given(command, "rank")) {
    set("rank", {"r", "init_r"}, s.rank);
    if (type == "OFT") config["oft_block_size"] = 0;
  } else {
    choice.unused.push_back("rank");
  }
  if (one_rank || given(command, "alpha"))
    set("alpha", {"lora_alpha", "alpha"}, s.alpha);
  else
    choice.unused.push_back("alpha");
  set("dropout", {"lora_dropout"}, s.dropout);
  set("virtual-tokens", {"num_virtual_tokens", "adapter_len"}, s.virtual_tokens);
  if (given(command, "adapter-layers")) {
    set("adapter-layers", {"adapter_layers"}, s.adapter_layers);
  } else {
    choice.unused.push_back("adapter-layers");
    if (defaults.contains("adapter_layers") && !from_file) {
      const auto* own = defaults.at("adapter_layers").get_if<std::int64_t>();
      const auto layers = static_cast<std::int64_t>(sites.info.layers);
      config["adapter_layers"] = std::min(layers, own == nullptr ? layers : *own);
    }
  }
  // Methods with modules of their own keep them unless others are asked for.
  const bool own_modules = type != "FULL" && !methods().at(type).places.named;
  if (type == "ADAPTION_PROMPT") {
    // The name of the attention, not a choice of sites.
    if (given(command, "target-modules"))
      config["target_modules"] = s.target_modules;
    else
      choice.unused.push_back("target-modules");
  } else if (own_modules && !given(command, "target-modules")) {
    choice.unused.push_back("target-modules");
  } else if (s.target_modules != "all") {
    set("target-modules", {"target_modules"}, target_value(s.target_modules, sites));
  } else if (type != "FULL") {
    throw graft::ValueError("--target-modules: 'all' goes with the method full only");
  }
  if (s.rslora) set("rslora", {"use_rslora"}, true);
  if (rslora) config["use_rslora"] = true;
  if (dora) config["use_dora"] = true;
  if (!s.exclude_modules.empty())
    set("exclude-modules", {"exclude_modules"}, target_value(s.exclude_modules, sites));
  if (!s.bias.empty()) set("bias", {"bias"}, s.bias);
  if (!s.layers.empty() && is_pattern(s.target_modules))
    throw graft::ValueError(
        "--layers: goes with names of modules, not with a regular expression, which can name the "
        "layers itself");
  if (!s.layers.empty()) set("layers", {"layers_to_transform"}, layer_list(s.layers));
  if (!s.init.empty()) set("init", {"init_lora_weights", "init_weights"}, parsed(s.init));
  for (const auto& field : s.fields) {
    const auto equals = field.find('=');
    const std::string key = field.substr(0, equals);
    if (equals == std::string::npos || !defaults.contains(key))
      throw graft::ValueError(concat("--set: '", field, "' is no FIELD=VALUE of method ", type,
                                     " (see graft methods ", type, ")"));
    config[key] = parsed(field.substr(equals + 1));
  }
  config["base_model_name_or_path"] = model_name;
  return choice;
}

std::string setting_hint(const std::string& message, const ConfigValue::Map& config) {
  static const std::map<std::string, std::string> kOptions{
      {"r", "--rank"},
      {"init_r", "--rank"},
      {"alpha", "--alpha"},
      {"lora_alpha", "--alpha"},
      {"lora_dropout", "--dropout"},
      {"num_virtual_tokens", "--virtual-tokens"},
      {"adapter_len", "--virtual-tokens"},
      {"adapter_layers", "--adapter-layers"},
      {"bias", "--bias"},
      {"exclude_modules", "--exclude-modules"},
      {"init_lora_weights", "--init"},
      {"init_weights", "--init"},
      {"layers_to_transform", "--layers"},
      {"use_rslora", "--rslora"},
      {"target_modules", "--target-modules"}};
  const auto it = config.find("peft_type");
  const auto* type = it == config.end() ? nullptr : it->second.get_if<std::string>();
  if (type == nullptr || !methods().contains(*type) || message.find("--") != message.npos)
    return "";
  const auto& defaults = methods().at(*type).defaults;
  std::vector<std::string> options;
  const auto add = [&](const std::string& field) {
    const auto known = kOptions.find(field);
    const auto option = known == kOptions.end() ? concat("--set ", field, "=VALUE") : known->second;
    if (std::find(options.begin(), options.end(), option) == options.end())
      options.push_back(option);
  };
  if (message.find("target modules") != message.npos) add("target_modules");
  // Words that are fields: "NAME: r 16 …", or with a line below, as no other word has.
  const std::size_t first = message.find(": ") + 2;
  for (std::size_t begin = 0, end = 0; begin < message.size(); begin = end + 1) {
    end = begin;
    while (end < message.size() &&
           (std::isalnum(static_cast<unsigned char>(message[end])) != 0 || message[end] == '_'))
      ++end;
    const auto word = message.substr(begin, end - begin);
    if (defaults.contains(word) && (begin == first || word.find('_') != word.npos)) add(word);
  }
  std::string text;
  for (const auto& option : options) text += (text.empty() ? "; to set: " : ", ") + option;
  return text;
}

void train_whole(ConfigValue::Map& config, const std::vector<std::string>& modules) {
  if (modules.empty()) return;
  const auto* type = config["peft_type"].get_if<std::string>();
  const bool full = type != nullptr && *type == "FULL";
  // Full fine-tuning of everything has the head among the rest; of some modules it takes the head
  // to them.
  if (full && !config.contains("target_modules")) return;
  const bool listed = full && config["target_modules"].get_if<ConfigValue::List>() != nullptr;
  auto& field = config[listed ? "target_modules" : "modules_to_save"];
  ConfigValue::List list;
  if (const auto* given = field.get_if<ConfigValue::List>()) list = *given;
  for (const auto& name : modules) {
    const ConfigValue value(name);
    if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
  }
  field = list;
}

void add_adapter_options(CLI::App& command, AdapterOptions& s) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group("Adapter");
  };
  add("--method", s.method, "Method by name (see graft methods), also dora and rslora");
  add("--adapter-config", s.adapter_config, "adapter_config.json to begin with");
  add("--set", s.fields, "FIELD=VALUE of the method's configuration; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add("--rank", s.rank, "Rank of the factors")->check(CLI::PositiveNumber);
  add("--virtual-tokens", s.virtual_tokens, "Virtual tokens of prompt and prefix methods")
      ->check(CLI::PositiveNumber);
  add("--adapter-layers", s.adapter_layers,
      "Layers, counted from the last one, that adaption prompts go to; all by default")
      ->check(CLI::PositiveNumber);
  add("--alpha", s.alpha, "Scaling is alpha / rank");
  add("--dropout", s.dropout, "On the input of the adapter")->check(CLI::Range(0.0, 0.999));
  command.add_flag("--rslora", s.rslora, "Scaling alpha / sqrt(rank)")->group("Adapter");
  add("--init", s.init, "Initial values: true, gaussian, orthogonal, pissa, olora, ...");
  add("--bias", s.bias, "Trained biases: none, all, lora_only");
  add("--target-modules", s.target_modules,
      "Names separated by commas, a regular expression on the whole path, all-linear, or all "
      "(full)");
  add("--exclude-modules", s.exclude_modules, "The same, for modules to leave out");
  add("--layers", s.layers, "Layer numbers and ranges separated by commas (0,4-7); all by default");
}

}  // namespace cli
