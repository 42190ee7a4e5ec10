// Runs cases that other programs computed: conformance --cases DIR [--filter REGEX] [--strict]
// [--json FILE] [--f64]
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <map>
#include <regex>

#include "graft/io/atomic_file.hpp"
#include "handlers.hpp"

namespace fs = std::filesystem;
using namespace conformance;

namespace {

const char* status_name(Status status) {
  return status == Status::pass ? "pass" : status == Status::fail ? "fail" : "unsupported";
}

/// Every folder with a case.json, every JSON file of a folder called tokenizer, and strings.json of
/// its subfolders, in the order of their paths.
std::vector<Case> discover(const fs::path& root) {
  std::vector<Case> cases;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const fs::path& path = entry.path();
    const bool folder_case = path.filename() == "case.json";
    const bool tokenizer =
        path.parent_path().filename() == "tokenizer" && path.extension() == ".json";
    const bool texts = path.filename() == "strings.json" &&
                       path.parent_path().parent_path().filename() == "tokenizer";
    if (!folder_case && !tokenizer && !texts) continue;
    Case c;
    c.root = root;
    c.folder = folder_case ? path.parent_path() : path;
    c.name = fs::relative(texts ? path.parent_path() : c.folder, root).generic_string();
    cases.push_back(std::move(c));
  }
  std::sort(cases.begin(), cases.end(),
            [](const Case& a, const Case& b) { return a.name < b.name; });
  return cases;
}

Result run(Case& c) {
  const bool is_file = fs::is_regular_file(c.folder);
  c.json = graft::io::read_json(is_file ? c.folder : c.folder / "case.json",
                                {.depth = 256, .allow_duplicates = true});
  const std::string kind = c.json.value("kind", is_file ? "tokenizer" : "multi");
  if (!is_file) {
    Checker check(tolerance_of(c.json));
    if (Handler::run(c, check)) return check.result();
  }
  if (kind == "layer") return run_layer_case(c);
  if (kind == "init") return run_init_case(c);
  if (kind == "multi") return run_multi_case(c);
  if (kind == "base" || (kind == "model" && c.json.contains("inputs"))) return run_model_case(c);
  if (kind == "model") return run_method_model_case(c);
  if (kind == "real") return run_real_case(c);
  if (kind == "quant") return run_quant_case(c);
  if (kind == "tokenizer") return run_tokenizer_case(c);
  const std::string type = is_file ? "" : peft_type_of(c);
  throw Unsupported{concat(kind, type.empty() ? "" : " of ", type)};
}

}  // namespace

int main(int argc, char** argv) {
  std::string folder, filter, json_file;
  bool strict = false;
  CLI::App app("Runs the cases of a folder and compares with the results that they hold.");
  app.add_option("--cases", folder, "Folder of cases")->required();
  app.add_option("--filter", filter,
                 "Only cases whose path below the folder has a match of this regular expression");
  app.add_option("--json", json_file, "Write the results to this file");
  app.add_flag("--strict", strict, "Unsupported cases count as failures");
  app.add_flag("--f64", settings().f64,
               "Run layer cases in double precision too, where the case has such results");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    if (!fs::is_directory(folder)) throw graft::IoError(concat(folder, ": no such folder"));
    std::regex pattern;
    try {
      pattern = std::regex(filter);
    } catch (const std::regex_error&) {
      throw graft::ValueError(concat("--filter '", filter, "' is no regular expression"));
    }
    Json report = Json::array();
    std::map<Status, int> counts;
    std::printf("%-52s %-11s %9s %9s %9s  %s\n", "case", "status", "max_abs", "max_rel", "allowed",
                "worst");
    for (Case& c : discover(folder)) {
      if (!filter.empty() && !std::regex_search(c.name, pattern)) continue;
      Result r;
      try {
        r = run(c);
      } catch (const Unsupported& u) {
        r.status = Status::unsupported;
        r.reason = u.reason;
      } catch (const std::exception& error) {
        const std::string what = error.what();
        const bool lacking = what.find("is not known; known are") != std::string::npos ||
                             what.find("is not supported") != std::string::npos;
        r.status = lacking ? Status::unsupported : Status::fail;
        r.reason = r.status == Status::unsupported ? what.substr(0, what.find(';')) : what;
      }
      r.name = c.name;
      ++counts[r.status];
      const bool good = r.status == Status::pass;
      std::string remark = good ? "" : r.reason;
      for (const auto& note : r.notes) remark += (remark.empty() ? "" : "; ") + note;
      std::printf("%-52s %-11s %9.1e %9.1e %9.1e  %s%s%s\n", r.name.c_str(), status_name(r.status),
                  r.max_abs, r.max_rel, r.tolerance, r.worst.c_str(), remark.empty() ? "" : "  ",
                  remark.c_str());
      std::fflush(stdout);
      report.push_back({{"name", r.name},
                        {"status", status_name(r.status)},
                        {"max_abs", std::isfinite(r.max_abs) ? Json(r.max_abs) : Json(nullptr)},
                        {"max_rel", std::isfinite(r.max_rel) ? Json(r.max_rel) : Json(nullptr)},
                        {"worst", r.worst},
                        {"reason", r.reason},
                        {"notes", r.notes}});
    }
    std::printf("%d passed, %d failed, %d unsupported\n", counts[Status::pass],
                counts[Status::fail], counts[Status::unsupported]);
    if (!json_file.empty()) {
      const std::string text = graft::io::json_text(report, 1) + "\n";
      graft::io::write_file_atomically(json_file, std::as_bytes(std::span(text)));
    }
    if (report.empty()) throw graft::ValueError(concat("no case in ", folder, " matches"));
    return counts[Status::fail] > 0 || (strict && counts[Status::unsupported] > 0) ? 1 : 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "conformance: %s\n", error.what());
    return 2;
  }
}
