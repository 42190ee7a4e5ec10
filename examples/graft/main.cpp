// graft: fine-tunes language models with adapters, on the CPU. One file a subcommand.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>

#include "encoder_commands.hpp"
#include "graft/version.hpp"
#include "options.hpp"

int main(int argc, char** argv) {
  CLI::App app("Parameter-efficient fine-tuning of language models on the CPU.", "graft");
  app.set_version_flag("--version", GRAFT_VERSION_STRING);
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  cli::Command run;
  for (auto* add : {cli::add_finetune, cli::add_generate, cli::add_evaluate, cli::add_predict,
                    cli::add_embed, cli::add_compare, cli::add_merge, cli::add_combine,
                    cli::add_inspect, cli::add_convert, cli::add_methods})
    add(app, run);
  const auto fail = [](int code, const char* message) {
    std::fprintf(stderr, "graft: %s\n", message);
    return code;
  };
  try {
    auto arguments = cli::with_settings(app, {argv + 1, argv + argc});
    std::reverse(arguments.begin(), arguments.end());
    app.parse(std::move(arguments));
    return run();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::fprintf(stderr, "graft: %s (see --help)\n", error.what());
    return 2;
  } catch (const cli::Exit& exit) {
    return exit.message.empty() ? exit.code : fail(exit.code, exit.message.c_str());
  } catch (const graft::Error& error) {
    return fail(2, error.what());
  } catch (const std::bad_alloc&) {
    return fail(1, "out of memory");
  } catch (const std::exception& error) {
    return fail(1, error.what());
  }
}
