#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>

#include "child.hpp"
#include "comparison.hpp"
#include "encoder_commands.hpp"
#include "graft/io/atomic_file.hpp"
#include "options.hpp"
#include "task.hpp"
#include "texts.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;
using graft::io::Json;

struct CompareSettings {
  std::string model, task = "classification", data, output, methods = "all", documents = "file",
                     learning_rates = "1e-3", full_learning_rates, scheduler = "linear",
                     target_modules = "all-linear", method_settings;
  LabelledOptions labelled;
  Index seeds = 3, batch_size = 32, rank = 8, sequence_length = 128, steps = 0;
  double epochs = 2, budget = 10, alpha = 16, held_out = 0.1;
  int threads = 0;
  bool json = false;
};

/// Full fine-tuning needs smaller steps than an adapter.
constexpr double kFullRateRatio = 0.05;
constexpr Index kTimedSteps = 12;

/// One comparison: every run is a process of its own, so that its memory is its own and a run that
/// fails ends nothing else. What is done is recorded below the output folder.
class Comparison {
 public:
  Comparison(const CompareSettings& settings, const CLI::App& command)
      : s_(settings), command_(command), output_(settings.output) {}

  int operator()() {
    read_settings();
    catch_interrupts();
    const auto names = method_names();
    for (const auto& name : names) total_ += std::ssize(rates_of(name)) - 1 + s_.seeds;
    for (const auto& name : names) {
      table_.push_back({});
      table_.back().name = name;
      try {
        compare(table_.back());
      } catch (const graft::Error& error) {
        table_.back().problem = error.what();
        if (!s_.json) say(concat(name, ": ", error.what()));
      }
      write();
    }
    if (std::all_of(table_.begin(), table_.end(), [](const auto& m) { return m.first.empty(); }))
      throw graft::ValueError(concat("no method could be compared: ", table_.front().problem));
    if (s_.json) {
      Json list = Json::array();
      for (const auto& m : table_) list.push_back(as_json(m));
      print_json(list);
    } else {
      say("\n" + comparison_markdown(measures_of(s_.task), table_));
      say(concat("tables     ", (output_ / "table.md").string(), ", .csv, .html"));
    }
    return 0;
  }

 private:
  /// The settings of a comparison that goes on must be those that it was begun with.
  void read_settings() {
    Json now = settings_of(command_);
    const auto drop_free = [](Json& settings) {
      for (const char* free : {"methods", "seeds", "threads"}) settings.erase(free);
    };
    drop_free(now);
    const fs::path file = output_ / "settings.json";
    if (fs::exists(file)) {
      Json then = with_defaults_among(graft::io::read_json(file));
      drop_free(then);
      for (const auto& [key, value] : now.items())
        if (then.contains(key) ? then.at(key) != value : given(command_, key))
          throw graft::ValueError(concat("--", key, ": the comparison in ", s_.output,
                                         " was begun with ",
                                         then.contains(key) ? then.at(key).dump() : "the default",
                                         ", it cannot go on with ", value.dump()));
      for (const auto& [key, value] : then.items())
        if (!now.contains(key))
          throw graft::ValueError(concat("--", key, ": the comparison in ", s_.output,
                                         " was begun with ", value.dump(),
                                         ", it cannot go on without it"));
    } else {
      fs::create_directories(output_);
      graft::io::write_file_atomically(
          file, graft::io::json_text(with_defaults_apart(command_, now), 2) + "\n");
    }
    if (s_.method_settings.empty()) return;
    own_ = graft::io::read_json(s_.method_settings);
    if (!own_.is_object())
      throw graft::IoError(s_.method_settings + ": expected an object of methods");
  }

  std::vector<std::string> method_names() const {
    std::vector<std::string> names;
    if (s_.methods == "all") {
      for (const auto& entry : methods().entries())
        if (entry.info.peft_type != "FULL") names.emplace_back(lower(entry.info.peft_type));
      names.insert(names.end(), {"dora", "rslora", "probe", "full"});
      return names;
    }
    for (const auto& name : split(s_.methods, ',')) {
      if (name != "probe" && name != "dora" && name != "rslora") method_type(name);
      names.push_back(name);
    }
    if (names.empty()) throw graft::ValueError("--methods: no method is named");
    return names;
  }
  static std::string lower(std::string_view text) {
    std::string result(text);
    for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return result;
  }

  /// Arguments that say which method a run trains.
  std::vector<std::string> method_arguments(const std::string& name) const {
    if (name == "probe") return {"--method", "full", "--target-modules", "classifier"};
    const bool lora = name == "dora" || name == "rslora";
    const std::string type = lora ? "LORA" : method_type(name);
    if (type == "FULL") return {"--method", "full", "--target-modules", "all"};
    std::vector<std::string> arguments{"--method", name};
    const auto& defaults = methods().at(type).defaults;
    const auto set = [&](const char* option, std::initializer_list<const char*> fields,
                         const std::string& value) {
      for (const char* field : fields)
        if (defaults.contains(field)) {
          arguments.insert(arguments.end(), {option, value});
          return;
        }
    };
    if (has_one_rank(defaults)) {
      if (type != "OFT") set("--rank", {"r", "init_r"}, std::to_string(s_.rank));
      set("--alpha", {"lora_alpha", "alpha"}, format_number(s_.alpha, "%g"));
    }
    // Others have places of their own.
    if (methods().at(type).places.named)
      set("--target-modules", {"target_modules"}, s_.target_modules);
    return arguments;
  }

  /// One call of finetune; its result.json, from now or from before.
  /// @throws ValueError with what it said if it failed, Exit if it was interrupted
  Json finetune(const std::string& folder, const std::string& label, const std::string& method,
                std::vector<std::string> more) {
    const fs::path place = output_ / "runs" / folder;
    if (fs::exists(place / "failed.json"))
      throw graft::ValueError(
          graft::io::read_json(place / "failed.json").at("problem").get<std::string>());
    if (!fs::exists(place / "result.json")) {
      std::vector<std::string> arguments{"finetune", "--output", place.string()};
      if (fs::exists(place / "settings.json")) {
        arguments.push_back("--resume");
      } else {
        fs::remove_all(place);
        const auto add = [&](const std::string& option, const std::string& value) {
          arguments.insert(arguments.end(), {"--" + option, value});
        };
        add("task", s_.task);
        add("model", s_.model);
        add("data", s_.data);
        add("documents", s_.documents);
        add("text-column", s_.labelled.text_column);
        add("label-column", s_.labelled.label_column);
        if (!s_.labelled.pair_column.empty()) add("pair-column", s_.labelled.pair_column);
        if (s_.labelled.no_header) arguments.push_back("--no-header");
        add("batch-size", std::to_string(s_.batch_size));
        add("sequence-length", std::to_string(s_.sequence_length));
        add("scheduler", s_.scheduler);
        add("threads", std::to_string(s_.threads));
        for (auto& list : {method_arguments(method), own_arguments(method)})
          arguments.insert(arguments.end(), list.begin(), list.end());
        arguments.insert(arguments.end(), more.begin(), more.end());
      }
      const auto result = run_self(
          arguments,
          [&](const std::string& line) {
            if (on_terminal() && !s_.json) {
              std::printf("\r\033[K%s: %s", label.c_str(), line.substr(0, 100).c_str());
              std::fflush(stdout);
            }
          },
          was_interrupted);
      if (on_terminal() && !s_.json) std::printf("\r\033[K");
      if (was_interrupted() || result.code == 130)
        throw Exit{130, "interrupted; the same command goes on from here"};
      if (result.code != 0) {
        const std::string prefix = "graft: ";
        const auto problem =
            result.last_line.substr(result.last_line.starts_with(prefix) ? prefix.size() : 0);
        // What a changed file or option may mend is tried again.
        if (result.code == 2) throw graft::ValueError(problem);
        fs::create_directories(place);
        graft::io::write_file_atomically(
            place / "failed.json",
            graft::io::json_text({{"code", result.code}, {"problem", problem}}) + "\n");
        throw graft::ValueError(problem);
      }
    }
    return graft::io::read_json(place / "result.json");
  }

  /// Settings of finetune from --method-settings: for all methods under "*", and for this one.
  std::vector<std::string> own_arguments(const std::string& method) const {
    std::vector<std::string> arguments;
    for (const auto& name : {std::string("*"), method}) {
      if (!own_.contains(name)) continue;
      for (const auto& [key, value] : own_.at(name).items()) {
        if (value == false) continue;
        arguments.push_back("--" + key);
        if (value != true)
          arguments.push_back(value.is_string() ? value.get<std::string>() : value.dump());
      }
    }
    return arguments;
  }

  /// Median time of a step, of the same first batches for all methods.
  double step_ms(const std::string& folder, const std::string& name,
                 const std::vector<std::string>& arguments) {
    const Json result = finetune(folder, concat("timing ", name), name, arguments);
    auto times = result.at("step_ms").get<std::vector<double>>();
    times.erase(times.begin(), times.begin() + std::min<Index>(2, std::ssize(times) - 1));
    return median(times);
  }

  void compare(ComparedMethod& m) {
    const std::string& name = m.name;
    const auto rates = rates_of(name);
    const std::vector<std::string> timing{"--steps", std::to_string(kTimedSteps), "--held-out",
                                          "0.01"};
    m.step_ms = step_ms(name + "-timing", name, timing);
    // A trained norm right behind the embeddings: gradients pass through all of the frozen model.
    auto frozen = timing;
    frozen.insert(frozen.end(), {"--method", "full", "--target-modules",
                                 ".*(embeddings\\.LayerNorm|layers\\.0\\.(input_layernorm|"
                                 "layernorm_before)|h\\.0\\.ln_1)"});
    const double frozen_ms = step_ms(name + "-frozen", "probe", frozen);
    m.over_frozen = m.step_ms / std::max(frozen_ms, 1e-9);
    const auto steps = static_cast<Index>(60000 * s_.budget / std::max(m.step_ms, 1e-3));

    std::string chosen, problem;
    const Measures measures = measures_of(s_.task);
    std::optional<double> best;
    for (const auto& rate : rates) {
      double value = 0;
      try {
        value = value_of(train(m, 1, rate, steps).at("held_out"), measures.first);
      } catch (const graft::Error& error) {  // one that is too high makes others no worse
        problem = error.what();
        if (!s_.json) say(concat(name, ", learning rate ", rate, ": ", problem));
        continue;
      }
      if (best && (measures.first.lower_is_better ? value >= *best : value <= *best)) continue;
      best = value;
      chosen = rate;
    }
    if (!best) throw graft::ValueError(problem);
    for (Index seed = 1; seed <= s_.seeds; ++seed) {
      const Json result = train(m, seed, chosen, steps);
      const Json& judged = result.at(result.contains("test") ? "test" : "held_out");
      m.first.push_back(value_of(judged, measures.first));
      m.second.push_back(value_of(judged, measures.second));
      m.learning_rates = {rate_of(name, chosen)};
      m.trainable = result.at("trainable").get<double>();
      m.steps = result.at("steps").get<double>();
      m.peak_mib = std::max(m.peak_mib, result.at("peak_rss_mib").get<double>());
      m.bytes = static_cast<double>(bytes_of(fs::path(result.at("adapter").get<std::string>()) /
                                             "adapter_model.safetensors"));
      if (result.contains("merge_max_rel"))
        m.merge = std::max(m.merge.value_or(0), result.at("merge_max_rel").get<double>());
    }
  }

  static double value_of(const Json& result, const Measure& measure) {
    const Json& value = result.at(measure.key);
    if (!value.is_number())
      throw graft::ValueError(concat("held-out or test data: ", measure.key, " is not finite"));
    return value.get<double>();
  }

  bool has_own_rates(const std::string& name) const {
    return name == "full" && !s_.full_learning_rates.empty();
  }

  std::vector<std::string> rates_of(const std::string& name) const {
    return split(has_own_rates(name) ? s_.full_learning_rates : s_.learning_rates, ',');
  }

  double rate_of(const std::string& name, const std::string& rate) const {
    const double value = std::stod(rate);
    return name == "full" && !has_own_rates(name) ? kFullRateRatio * value : value;
  }

  Json train(const ComparedMethod& m, Index seed, const std::string& rate, Index most) {
    const auto begin = std::chrono::steady_clock::now();
    const std::string folder =
        concat(m.name, "-seed", seed, rates_of(m.name).size() > 1 ? "-" + rate : "");
    const bool known = fs::exists(output_ / "runs" / folder / "result.json");
    const std::string label = concat(m.name, ", seed ", seed, ", learning rate ",
                                     format_number(rate_of(m.name, rate), "%g"));
    std::vector<std::string> more{"--seed",          std::to_string(seed),
                                  "--learning-rate", format_number(rate_of(m.name, rate), "%.9g"),
                                  "--held-out",      format_number(s_.held_out, "%g"),
                                  "--check-merge"};
    if (!s_.labelled.held_out_data.empty())
      more.insert(more.end(), {"--held-out-data", s_.labelled.held_out_data});
    if (!s_.labelled.test_data.empty())
      more.insert(more.end(), {"--test-data", s_.labelled.test_data});
    more.insert(more.end(), {"--max-steps", std::to_string(std::max<Index>(most, 1))});
    if (s_.steps > 0)
      more.insert(more.end(), {"--steps", std::to_string(s_.steps)});
    else
      more.insert(more.end(), {"--epochs", format_number(s_.epochs, "%g")});
    const Json result = finetune(folder, label, m.name, more);
    if (known) return result;
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    ++done_;
    const Measure shown = measures_of(s_.task).first;
    if (!s_.json)
      say(concat("[", done_, "/", total_, "] ", label, ": ", shown.column, " ",
                 format_number(shown.scale * value_of(result.at("held_out"), shown), shown.format),
                 " held out, ", format_number(seconds_ / static_cast<double>(done_), "%.0f"),
                 " s a run"));
    return result;
  }

  void write() const {
    std::vector<std::pair<std::string, std::string>> settings;
    const Json values = settings_of(command_);  // items() keeps no copy
    for (const auto& [key, value] : values.items())
      settings.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
    write_comparison(output_,
                     concat("Methods on ", last_name(s_.data), " with ", last_name(s_.model)),
                     measures_of(s_.task), table_, settings);
  }

  Json as_json(const ComparedMethod& m) const {
    const auto [first, second] = measures_of(s_.task);
    Json json{{"method", m.name},
              {concat(first.key, "_values"), m.first},
              {first.key, mean(m.first)},
              {"deviation", deviation(m.first)},
              {second.key, mean(m.second)},
              {"trainable", m.trainable},
              {"step_ms", m.step_ms},
              {"over_frozen", m.over_frozen},
              {"peak_rss_mib", m.peak_mib},
              {"adapter_bytes", m.bytes},
              {"steps", m.steps}};
    if (m.merge) json["merge_max_rel"] = *m.merge;
    if (!m.problem.empty()) json["problem"] = m.problem;
    return json;
  }

  const CompareSettings& s_;
  const CLI::App& command_;
  fs::path output_;
  Json own_ = Json::object();
  std::vector<ComparedMethod> table_;
  Index total_ = 0, done_ = 0;
  double seconds_ = 0;
};

}  // namespace

void add_compare(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand(
      "compare", "Train several methods on one task under one budget -> table and page");
  auto s = std::make_shared<CompareSettings>();
  auto unused = std::make_shared<std::string>();
  const auto positive = CLI::PositiveNumber;
  c->option_defaults()->always_capture_default();
  c->add_option("--config", *unused, "JSON file with any of these options; the command line wins");
  c->add_option("--model", s->model, "As in finetune")->required();
  c->add_option("--task", s->task, "As in finetune")->check(CLI::IsMember(task_names()));
  c->add_option("--data", s->data, "As in finetune")->required();
  c->add_option("--documents", s->documents, "Language: as in finetune")
      ->check(CLI::IsMember({"file", "blank-line", "line"}));
  c->add_option("--held-out-data", s->labelled.held_out_data,
                "File of rows for evaluation, in place of --held-out");
  c->add_option("--test-data", s->labelled.test_data,
                "File of rows that the accuracy in the table is for; the held-out rows without it");
  add_column_options(*c, s->labelled);
  c->add_option("--output", s->output, "Folder for tables and runs; the same command goes on there")
      ->required();
  c->add_option("--methods", s->methods,
                "Names separated by commas (see graft methods), also dora, rslora, probe (the head "
                "alone) and full; or all");
  c->add_option("--seeds", s->seeds, "Runs of each method")->check(positive);
  c->add_option("--budget", s->budget, "Minutes of training of a run, at most")->check(positive);
  c->add_option("--epochs", s->epochs, "Passes over the data, if the budget allows")
      ->check(positive);
  c->add_option("--steps", s->steps, "Steps in place of --epochs")->check(CLI::NonNegativeNumber);
  c->add_option("--batch-size", s->batch_size, "Rows in a batch")->check(positive);
  c->add_option("--sequence-length", s->sequence_length, "Longer texts are cut to so many tokens")
      ->check(CLI::Range(2, 1 << 20));
  c->add_option("--held-out", s->held_out, "Share of the rows kept for evaluation")
      ->check(CLI::Range(0.01, 0.99));
  c->add_option("--learning-rates", s->learning_rates,
                "Separated by commas: each is tried with the first seed, and the one with the best "
                "held-out accuracy taken; full fine-tuning takes a twentieth of them, or its own");
  c->add_option("--full-learning-rates", s->full_learning_rates,
                "For full fine-tuning, in place of a twentieth of --learning-rates");
  c->add_option("--scheduler", s->scheduler, "constant, linear or cosine")
      ->check(CLI::IsMember({"constant", "linear", "cosine"}));
  c->add_option("--rank", s->rank, "Where a method has one")->check(positive);
  c->add_option("--alpha", s->alpha, "Where a method has one");
  c->add_option("--target-modules", s->target_modules, "As in finetune");
  c->add_option("--method-settings", s->method_settings,
                "JSON file: method, or * for all, -> options of finetune and their values");
  c->add_option("--threads", s->threads, "0: all cores")->check(CLI::NonNegativeNumber);
  c->add_flag("--json", s->json, "Print one JSON array at the end instead of text");
  c->callback([&run, s, unused, c] { run = [s, unused, c] { return Comparison(*s, *c)(); }; });
}

}  // namespace cli
