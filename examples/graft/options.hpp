#pragma once

#include <string>
#include <vector>

#include "graft/io/json.hpp"

namespace CLI {
class App;
}

/// Settings of a command from files: `--config FILE`, and the settings beside an adapter for
/// `--resume`.
namespace cli {

/// The arguments with those of `--config FILE` (a JSON object, keys are names of options) and, with
/// `--resume`, of settings.json in the folder of `--output` put behind the name of the command,
/// unless the command line has them itself.
/// `compare` goes on in a folder that has settings with the defaults that these had.
/// An option below the key "defaults" counts as given only where it has another default by now.
/// @throws IoError for a file that cannot be read, a key that is no option of the command, a value
/// that fits none
std::vector<std::string> with_settings(const CLI::App& app, std::vector<std::string> arguments);

/// Values of a command's options by name, as JSON; those that steer one call, such as `--config`,
/// are left out. Paths are absolute.
graft::io::Json settings_of(const CLI::App& command);

/// The settings as a file has them: options that were not given below "defaults", since a method
/// may mean another value where none is given.
graft::io::Json with_defaults_apart(const CLI::App& command, const graft::io::Json& settings);
/// Back: all on one level.
graft::io::Json with_defaults_among(graft::io::Json settings);

/// True if an option was given, on the command line or in a file.
bool given(const CLI::App& command, const std::string& option);

}  // namespace cli
