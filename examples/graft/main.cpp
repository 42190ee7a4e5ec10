// graft: fine-tunes language models with adapters, on the CPU. One file a subcommand.
#include <cstdio>
#include <exception>
#include <utility>

#include "common.hpp"
#include "graft/version.hpp"

namespace {

/// Options of `--config FILE` (a JSON object), put in front of those of the command line, which
/// win.
std::vector<std::string> with_config(std::vector<std::string> arguments) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string file;
    std::size_t count = 1;
    if (arguments[i] == "--config" && i + 1 < arguments.size()) {
      file = arguments[i + 1];
      count = 2;
    } else if (arguments[i].rfind("--config=", 0) == 0) {
      file = arguments[i].substr(9);
    } else {
      continue;
    }
    arguments.erase(arguments.begin() + static_cast<std::ptrdiff_t>(i),
                    arguments.begin() + static_cast<std::ptrdiff_t>(i + count));
    std::vector<std::string> given;
    for (const auto& [key, value] : graft::read_config_file(file)) {
      if (value.is_null()) continue;
      std::string text;
      if (const auto* list = value.get_if<graft::ConfigValue::List>()) {
        for (const auto& item : *list) {
          const auto* s = item.get_if<std::string>();
          text += (text.empty() ? "" : ",") + (s != nullptr ? *s : graft::config_json(item).dump());
        }
      } else if (const auto* s = value.get_if<std::string>()) {
        text = *s;
      } else {
        text = graft::config_json(value).dump();
      }
      given.push_back("--" + key + "=" + text);
    }
    arguments.insert(arguments.begin() + (arguments.empty() ? 0 : 1), given.begin(), given.end());
    break;
  }
  return arguments;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Parameter-efficient fine-tuning of language models on the CPU.", "graft");
  app.set_version_flag("--version", GRAFT_VERSION_STRING);
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  cli::Command run;
  for (auto* add : {cli::add_finetune, cli::add_generate, cli::add_evaluate, cli::add_merge,
                    cli::add_inspect, cli::add_convert, cli::add_methods})
    add(app, run);
  try {
    auto arguments = with_config({argv + 1, argv + argc});
    std::reverse(arguments.begin(), arguments.end());
    app.parse(std::move(arguments));
    return run();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::fprintf(stderr, "graft: %s (see --help)\n", error.what());
    return 2;
  } catch (const cli::Exit& exit) {
    if (!exit.message.empty()) std::fprintf(stderr, "graft: %s\n", exit.message.c_str());
    return exit.code;
  } catch (const graft::Error& error) {
    std::fprintf(stderr, "graft: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "graft: %s\n", error.what());
    return 1;
  }
}
