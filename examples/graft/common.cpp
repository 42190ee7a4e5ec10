#include "common.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "graft/compose/methods.hpp"
#include "graft/models/load.hpp"
#include "graft/text/load_tokenizer.hpp"

namespace cli {

const graft::MethodRegistry<float>& methods() { return graft::all_methods<float>(); }

std::unique_ptr<graft::models::Model> load_model(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path))
    throw graft::IoError(path.string() + ": no such file or folder");
  return graft::models::load<float>(path);
}

std::unique_ptr<graft::models::CausalModel> load_causal(const std::filesystem::path& path) {
  auto model = load_model(path);
  auto* causal = dynamic_cast<graft::models::CausalModel*>(model.get());
  if (causal == nullptr)
    throw graft::ValueError(graft::concat(path.string(), ": architecture ",
                                          model->info().architecture, " is no language model"));
  model.release();
  return std::unique_ptr<graft::models::CausalModel>(causal);
}

graft::text::Tokenizer load_tokenizer(const std::filesystem::path& path) {
  return graft::text::load_tokenizer(path);
}

void load_adapters(graft::AdapterModel& model, const std::vector<std::string>& folders) {
  std::vector<std::string> names;
  for (const auto& given : folders) {
    const auto equals = given.find('=');
    const std::string name = equals == std::string::npos ? graft::concat("adapter", names.size())
                                                         : given.substr(0, equals);
    const std::filesystem::path folder =
        equals == std::string::npos ? given : given.substr(equals + 1);
    if (!std::filesystem::is_directory(folder))
      throw graft::IoError(folder.string() + ": no such adapter folder");
    model.load(name, folder);
    names.push_back(name);
  }
  model.activate(names);
}

double peak_rss_mib() {
  // VmHWM is of this process alone; getrusage also counts the parent's before exec.
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "VmHWM:") {
      double kib = 0;
      status >> kib;
      return kib / 1024;
    }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

std::uintmax_t bytes_of(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return std::filesystem::file_size(path);
  std::uintmax_t total = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path))
    if (entry.is_regular_file()) total += entry.file_size();
  return total;
}

std::string mib(std::uintmax_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / 1048576);
  return text;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::string part;
  for (char c : text + separator) {
    if (c != separator)
      part += c;
    else if (!part.empty())
      parts.push_back(std::exchange(part, ""));
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

graft::models::Batch batch_of_text(const std::vector<std::int32_t>& ids) {
  graft::models::Batch batch;
  batch.batch = 1;
  batch.seq_len = static_cast<graft::Index>(ids.size());
  batch.ids = ids;
  batch.labels.assign(ids.begin(), ids.end());
  return batch;
}

}  // namespace cli
