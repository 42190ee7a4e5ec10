#include "command.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <utility>

#include "graft/base/thread_pool.hpp"

namespace cli {

namespace fs = std::filesystem;
using graft::Index;

std::string last_name(const fs::path& path) {
  return (path.filename().empty() ? path.parent_path() : path).filename().string();
}

namespace {

/// A field of /proc/self/status, or of another such file, in KiB, 0 if there is none.
double status_kib(const std::string& key, const char* file = "/proc/self/status") {
  std::ifstream status(file);
  for (std::string word; status >> word;)
    if (word == key) {
      double kib = 0;
      status >> kib;
      return kib;
    }
  return 0;
}

std::atomic<bool> interrupted{false};
extern "C" void note_interrupt(int signal) {
  interrupted = true;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, note_interrupt);
  std::signal(SIGTERM, note_interrupt);
}

bool was_interrupted() { return interrupted.load(); }

double peak_rss_mib() {
  // VmHWM is of this process alone; getrusage also counts the parent's before exec.
  if (const double kib = status_kib("VmHWM:"); kib > 0) return kib / 1024;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

double rss_mib() { return status_kib("VmRSS:") / 1024; }
double available_mib() { return status_kib("MemAvailable:", "/proc/meminfo") / 1024; }

std::uintmax_t bytes_of(const fs::path& path) {
  if (!fs::is_directory(path)) return fs::file_size(path);
  std::uintmax_t total = 0;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_regular_file()) total += entry.file_size();
  return total;
}

std::string format_number(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string mib(std::uintmax_t bytes) {
  return format_number(static_cast<double>(bytes) / 1048576, "%.1f MiB");
}

std::string millions(Index count) {
  if (count < 100000) return std::to_string(count);
  return format_number(static_cast<double>(count) * 1e-6, count < 10000000 ? "%.2f M" : "%.1f M");
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::string part;
  for (const char c : text + separator) {
    if (c != separator) {
      part += c;
    } else if (!part.empty()) {
      parts.push_back(std::exchange(part, ""));
    }
  }
  return parts;
}

bool on_terminal() { return ::isatty(STDOUT_FILENO) == 1; }

void set_threads(int threads) {
  if (threads > 0) graft::ThreadPool::global().set_threads(threads);
}

void print_json(const graft::io::Json& json) {
  std::printf("%s\n", graft::io::json_text(json, 2).c_str());
}

void say(const std::string& text) {
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

}  // namespace cli
