#include "handlers.hpp"

#include <utility>

namespace conformance {
namespace {

struct Entry {
  Takes takes;
  std::function<void(Checker&, const Case&)> run;
};
std::vector<Entry>& table() {
  static std::vector<Entry> entries;
  return entries;
}

}  // namespace

std::string peft_type_of(const Case& c) {
  const auto config = c.folder / "adapter_config.json";
  if (std::filesystem::exists(config))
    return graft::io::read_json(config).value("peft_type", std::string());
  return c.json.value("peft_type", std::string());
}

Handler::Handler(Takes takes, std::function<void(Checker&, const Case&)> run) {
  table().push_back({std::move(takes), std::move(run)});
}

bool Handler::run(const Case& c, Checker& check) {
  const std::string type = peft_type_of(c);
  const auto fits = [&](const char* field, const std::string& wanted) {
    const auto it = c.json.find(field);
    return wanted.empty() || (it != c.json.end() && it->is_string() && *it == wanted);
  };
  for (auto it = table().rbegin(); it != table().rend(); ++it) {
    if (!fits("kind", it->takes.kind) || !fits("method", it->takes.method)) continue;
    if (!it->takes.peft_type.empty() && it->takes.peft_type != type) continue;
    if (!c.json.value("name", std::string()).starts_with(it->takes.name)) continue;
    if (const auto& has = it->takes.has;
        !has.empty() && !c.json.contains(has) && tensors_of(c).find(has) == nullptr)
      continue;
    it->run(check, c);
    return true;
  }
  return false;
}

}  // namespace conformance
