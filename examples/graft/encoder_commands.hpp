#pragma once

#include "command.hpp"

/// Subcommands for encoders and classifiers.
namespace cli {

void add_predict(CLI::App& app, Command& run);
void add_embed(CLI::App& app, Command& run);
void add_compare(CLI::App& app, Command& run);

}  // namespace cli
