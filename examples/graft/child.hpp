#pragma once

#include <functional>
#include <string>
#include <vector>

namespace cli {

/// What became of a process: its exit code (128 + signal if one ended it), and the last line that
/// it wrote.
struct ChildResult {
  int code = 0;
  std::string last_line;
};

/// Runs this program again with these arguments. `line` is called with each line that it writes;
/// when `stop` turns true, it is asked to end (SIGTERM). It also is if this process ends.
/// @throws IoError if no process can be made
ChildResult run_self(const std::vector<std::string>& arguments,
                     const std::function<void(const std::string&)>& line,
                     const std::function<bool()>& stop);

}  // namespace cli
