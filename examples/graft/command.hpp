#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "graft/base/types.hpp"
#include "graft/io/json.hpp"

namespace CLI {
class App;
}

/// What all subcommands share.
namespace cli {

/// Ends the program with this code; the message is printed on one line.
struct Exit {
  int code;
  std::string message;
};

/// A subcommand registers its options and what to run.
using Command = std::function<int()>;
void add_finetune(CLI::App& app, Command& run);
void add_generate(CLI::App& app, Command& run);
void add_evaluate(CLI::App& app, Command& run);
void add_merge(CLI::App& app, Command& run);
void add_combine(CLI::App& app, Command& run);
void add_inspect(CLI::App& app, Command& run);
void add_convert(CLI::App& app, Command& run);
void add_methods(CLI::App& app, Command& run);

/// Last part of a path, also of one that ends in a slash.
std::string last_name(const std::filesystem::path& path);
double peak_rss_mib();
/// Memory of the process now.
double rss_mib();
/// Memory that new allocations can have, 0 if that is not known.
double available_mib();
std::uintmax_t bytes_of(const std::filesystem::path& path);
std::string mib(std::uintmax_t bytes);
/// "134.5 M"
std::string millions(graft::Index count);
std::string format_number(double value, const char* format);
std::vector<std::string> split(const std::string& text, char separator);
/// True if stdout is a terminal.
bool on_terminal();
/// From now on SIGINT and SIGTERM are only noted; the second one ends the program at once.
void catch_interrupts();
bool was_interrupted();
void set_threads(int threads);
void print_json(const graft::io::Json& json);
/// Prints a line at once.
void say(const std::string& text);

}  // namespace cli
