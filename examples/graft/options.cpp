#include "options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <filesystem>

#include "graft/base/error.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::io::Json;
using graft::io::JsonView;

/// Options that steer one call and are no settings of a run.
constexpr std::array<const char*, 6> kNotSettings{"help",      "config", "resume",
                                                  "overwrite", "json",   "output"};
constexpr std::array<const char*, 7> kPaths{
    "model", "data", "adapter-config", "report", "held-out-data", "test-data", "method-settings"};

/// Key of the options that were not given, in a file of settings.
constexpr const char* kDefaults = "defaults";

template <std::size_t N>
bool one_of(const std::array<const char*, N>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// True for an option that may be repeated.
bool takes_all(const CLI::Option& option) {
  return option.get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
}

bool is_option(const std::string& argument, const std::string& name) {
  return argument == "--" + name || argument.starts_with("--" + name + "=");
}

bool has_option(const std::vector<std::string>& arguments, const std::string& name) {
  return std::any_of(arguments.begin(), arguments.end(),
                     [&](const auto& a) { return is_option(a, name); });
}

std::string value_text(const JsonView& value) {
  if (value.is_string()) return value.string();
  if (value.is_boolean() || value.is_number()) return graft::io::json_text(value.json(), -1);
  if (!value.is_array()) value.fail("expected a text, a number, true, false or a list of them");
  std::string text;
  for (const auto& element : value.elements()) {
    if (element.is_array() || element.is_object()) element.fail("expected a text or a number");
    text += (text.empty() ? "" : ",") + value_text(element);
  }
  return text;
}

/// The value of an option, or its default; null if that is empty.
Json json_value(const CLI::Option& option, bool use_default) {
  if (takes_all(option)) return use_default ? Json() : Json(option.results());
  if (option.get_items_expected_max() == 0) return !use_default && option.as<bool>();  // a flag
  const std::string& name = option.get_lnames()[0];
  const std::string text = use_default ? option.get_default_str() : option.results().back();
  if (text.empty()) return {};
  const std::string type = option.get_type_name();
  if (type.starts_with("INT") || type.starts_with("UINT") || type.starts_with("FLOAT"))
    return graft::io::parse_json(text, "--" + name);
  return one_of(kPaths, name) ? fs::absolute(text).string() : text;
}

/// Arguments from a settings file, without options that `arguments` has: where `with_given` is set
/// those that were given, and of those that were at their defaults the ones that have another
/// default by now.
std::vector<std::string> read_settings(const CLI::App& command, const fs::path& path,
                                       const std::vector<std::string>& arguments,
                                       bool with_given = true) {
  const Json document = graft::io::read_json(path);
  std::vector<std::string> result;
  const auto read = [&](const JsonView& settings, bool defaults) {
    for (const auto& [key, value] : settings.members()) {
      if (key == kDefaults && !defaults) continue;
      std::string name = key;
      std::replace(name.begin(), name.end(), '_', '-');
      const auto* option = command.get_option_no_throw("--" + name);
      if (option == nullptr || name == "config")
        value.fail(concat("is no option of graft ", command.get_name()));
      if (value.is_null() || has_option(arguments, name)) continue;
      if (defaults && value.json() == json_value(*option, true)) continue;
      const auto add = [&](const JsonView& v) {
        result.push_back(concat("--", name, "=", value_text(v)));
      };
      if (takes_all(*option) && value.is_array()) {
        for (const auto& element : value.elements()) add(element);
      } else {
        add(value);
      }
    }
  };
  const JsonView settings(document, path.string());
  if (with_given) read(settings, false);
  if (const auto defaults = settings.find(kDefaults)) read(*defaults, true);
  return result;
}

/// Takes an option with its value out of the arguments; false if it is not there.
bool take(std::vector<std::string>& arguments, const std::string& name, std::string& value) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (!is_option(arguments[i], name)) continue;
    const bool joined = arguments[i].size() > name.size() + 2;
    if (!joined && i + 1 == arguments.size())
      throw graft::ValueError(concat("--", name, ": a value is missing"));
    value = joined ? arguments[i].substr(name.size() + 3) : arguments[i + 1];
    const auto at = arguments.begin() + static_cast<std::ptrdiff_t>(i);
    arguments.erase(at, at + (joined ? 1 : 2));
    return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> with_settings(const CLI::App& app, std::vector<std::string> arguments) {
  if (arguments.empty()) return arguments;
  const CLI::App* command = nullptr;
  for (const auto* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    if (sub->get_name() == arguments[0]) command = sub;
  if (command == nullptr) return arguments;
  std::vector<std::string> from_files;
  std::string file;
  if (command->get_option_no_throw("--config") != nullptr && take(arguments, "config", file))
    from_files = read_settings(*command, file, arguments);
  const bool resumes =
      command->get_option_no_throw("--resume") != nullptr && has_option(arguments, "resume");
  if (resumes || command->get_name() == "compare") {
    auto known = arguments;
    known.insert(known.end(), from_files.begin(), from_files.end());
    auto copy = known;
    std::string output;
    const bool named = take(copy, "output", output);
    if (resumes && !named)
      throw graft::ValueError("--resume: --output names the folder of the run to go on with");
    const fs::path settings = fs::path(output) / "settings.json";
    const bool begun = named && fs::exists(settings);
    if (resumes && !begun)
      throw graft::IoError(
          concat(settings.string(), ": no such file; there is no run to go on with"));
    if (begun) {
      const auto more = read_settings(*command, settings, known, resumes);
      from_files.insert(from_files.end(), more.begin(), more.end());
    }
  }
  arguments.insert(arguments.begin() + 1, from_files.begin(), from_files.end());
  return arguments;
}

Json settings_of(const CLI::App& command) {
  Json settings = Json::object();
  for (const auto* option : command.get_options()) {
    if (option->get_lnames().empty() || one_of(kNotSettings, option->get_lnames()[0])) continue;
    if (Json value = json_value(*option, option->count() == 0); !value.is_null())
      settings[option->get_lnames()[0]] = std::move(value);
  }
  return settings;
}

Json with_defaults_apart(const CLI::App& command, const Json& settings) {
  Json result = Json::object(), defaults = Json::object();
  for (const auto& [key, value] : settings.items())
    (given(command, key) ? result : defaults)[key] = value;
  result[kDefaults] = std::move(defaults);
  return result;
}

Json with_defaults_among(Json settings) {
  if (const auto it = settings.find(kDefaults); it != settings.end()) {
    const Json defaults = std::move(*it);
    settings.erase(it);
    settings.update(defaults);
  }
  return settings;
}

bool given(const CLI::App& command, const std::string& option) {
  const auto* found = command.get_option_no_throw("--" + option);
  return found != nullptr && found->count() > 0;
}

}  // namespace cli
