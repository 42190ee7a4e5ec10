#include "graft/compose/combine.hpp"

#include <CLI/CLI.hpp>
#include <cmath>
#include <optional>

#include "graft/compose/convert.hpp"
#include "labels.hpp"
#include "options.hpp"
#include "session.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;

struct CombineSettings {
  std::string model, output;
  std::vector<std::string> adapters;
  std::vector<double> weights;
  graft::CombineOptions options;
  std::string granularity = "row";
  bool json = false;
};

/// exact, Hugging Face PEFT's combination_type, and others in its two forms.
const std::vector<std::string>& modes() {
  static const auto list = [] {
    std::vector<std::string> names{"exact", "cat", "linear", "svd"};
    for (const char* name :
         {"ties", "dare_linear", "dare_ties", "magnitude_prune", "breadcrumbs", "compeft"}) {
      names.emplace_back(name);
      names.push_back(concat(name, "_svd"));
    }
    return names;
  }();
  return list;
}

/// Whether a mode heeds an option.
bool heeds(const std::string& mode, const std::string& option) {
  const auto is = [&](const char* start) { return mode.starts_with(start); };
  if (option == "rank") return mode == "exact" || mode.ends_with("svd");
  if (option == "energy") return mode == "exact";
  if (option == "svd-clamp") return mode.ends_with("svd");
  if (option == "sign") return is("ties") || is("dare_ties");
  if (option == "seed") return is("dare_");
  if (option == "remove" || option == "granularity") return is("breadcrumbs");
  return is("ties") || is("dare_") || is("magnitude_prune") || is("breadcrumbs") || is("compeft");
}

void check_options(const CombineSettings& s, const CLI::App& command) {
  std::string mode = s.options.combination_type;
  // As in PEFT, one adapter is combined linearly by the other modes.
  const bool usual = mode.starts_with("breadcrumbs") || mode.starts_with("compeft");
  if (s.adapters.size() == 1 && mode != "exact" && !usual) mode = "linear";
  for (const char* option :
       {"density", "remove", "granularity", "sign", "rank", "energy", "svd-clamp", "seed"}) {
    if (heeds(mode, option) || !given(command, option)) continue;
    std::string others;
    for (const auto& other : modes())
      if (heeds(other, option)) others += (others.empty() ? "" : ", ") + other;
    throw graft::ValueError(
        concat("--", option, ": goes with --mode ", others, ", not ", mode,
               mode == s.options.combination_type ? "" : ", as which one adapter is combined"));
  }
  if (heeds(mode, "density") && given(command, "density") && s.options.density == 0)
    throw graft::ValueError("--density: 0 keeps no entry, expected above 0");
  if (heeds(mode, "density") && !usual && !given(command, "density"))
    throw graft::ValueError(
        concat("--mode ", mode, ": needs --density, the share of entries that it keeps"));
}

/// What the heads of adapters are for: one thing, which some of them may lack.
struct Heads {
  std::vector<bool> there;
  std::optional<Labels> labels;
};
/// @throws ValueError if they have heads for different things
Heads heads_of(const std::vector<std::string>& adapters) {
  Heads heads;
  std::string first;
  for (const auto& from : adapters) {
    auto own = load_labels(adapter_folder(from));
    heads.there.push_back(own.has_value());
    if (!own) continue;
    if (heads.labels && (own->task != heads.labels->task || own->names != heads.labels->names))
      throw graft::ValueError(
          concat("--adapter: the head of ", from, " is for other classes than that of ", first));
    first = from;
    heads.labels = std::move(own);
  }
  return heads;
}

int combine(const CombineSettings& s, const CLI::App& command) {
  check_options(s, command);
  if (!s.weights.empty() && s.weights.size() != s.adapters.size())
    throw graft::ValueError(
        concat("--weights: ", s.weights.size(), " weights for ", s.adapters.size(), " adapters"));
  for (const double weight : s.weights)
    if (!std::isfinite(weight))
      throw graft::ValueError(concat("--weights: ", weight, ", expected finite numbers"));
  if (fs::exists(s.output) && (!fs::is_directory(s.output) || !fs::is_empty(s.output)))
    throw graft::ValueError(concat("--output: ", s.output, " exists already"));
  const auto heads = heads_of(s.adapters);
  const auto& labels = heads.labels;
  if (labels && s.options.combination_type != "exact")
    throw graft::ValueError(concat("--mode ", s.options.combination_type,
                                   ": adapters with a head go with --mode exact, which combines "
                                   "heads too"));
  const auto opened = load_for(s.model, labels, adapter_folder(s.adapters.front()));
  const auto& model = opened.model;
  graft::AdapterModel adapters(model->sites(), methods());
  load_adapters(adapters, s.adapters, s.model);
  const auto names = adapters.names();
  // Breadcrumbs' paper gives all tasks one weight below 1.
  const double usual = s.options.combination_type.starts_with("breadcrumbs") ? 0.3 : 1;
  const auto weights = s.weights.empty() ? std::vector<double>(names.size(), usual) : s.weights;
  double sum = 0;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (heads.there[i]) sum += weights[i];
  if (!opened.drawn.empty() && std::abs(sum - 1) > 1e-6)
    throw graft::ValueError(concat(
        "--weights: they add up to ", format_number(sum, "%g"),
        "; adapters with a head that the model does not have take weights that add up to 1"));
  std::string result = "combined";
  while (adapters.contains(result)) result += "_";
  auto options = s.options;
  options.by_row = s.granularity == "row";
  auto& set = graft::add_weighted_adapter(adapters, names, weights, result, options);
  set.mutable_config()["base_model_name_or_path"] = last_name(s.model);
  adapters.save(result, s.output);
  if (labels) save_labels(s.output, *labels);
  if (s.json) {
    graft::io::Json list = graft::io::Json::array();
    for (std::size_t i = 0; i < names.size(); ++i)
      list.push_back({{"name", names[i]}, {"weight", weights[i]}});
    print_json({{"output", s.output},
                {"mode", s.options.combination_type},
                {"adapters", list},
                {"rank", graft::config_json(set.given_config().at("r"))},
                {"parameters", set.trainable_elements()}});
    return 0;
  }
  say(concat("wrote ", names.size(), " adapters as one LoRA of ",
             millions(set.trainable_elements()), " parameters to ", s.output));
  return 0;
}

}  // namespace

void add_combine(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("combine", "Several adapters as one LoRA, with weights");
  auto s = std::make_shared<CombineSettings>();
  auto unused = std::make_shared<std::string>();
  c->option_defaults()->always_capture_default();
  c->add_option("--config", *unused, "JSON file with any of these options; the command line wins");
  c->add_option("--model", s->model, "The model that the adapters belong to")->required();
  c->add_option("--adapter", s->adapters,
                "Adapter FOLDER or NAME=FOLDER; may be repeated, or separated by commas")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->delimiter(',')
      ->required();
  c->add_option(
       "--weights", s->weights,
       "A number for each adapter, separated by commas; a negative one takes away what the "
       "adapter learnt. Default: all 1, of breadcrumbs* all 0.3")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->delimiter(',');
  c->add_option(
       "--mode", s->options.combination_type,
       "exact: the weighted sum of what the adapters do to the weights, for any method "
       "that merges. The others are for LoRA: Hugging Face PEFT's combination_type, Model "
       "Breadcrumbs (without the largest entries and the small ones) and ComPEFT (signs of "
       "the largest entries times one number). One adapter is combined linearly by PEFT's")
      ->check(CLI::IsMember(modes()));
  c->add_option("--density", s->options.density,
                "Share of entries that ties*, dare_*, magnitude_prune*, breadcrumbs* and compeft* "
                "keep; default of breadcrumbs* 0.1, of compeft* 0.2")
      ->check(CLI::Range(0.0, 1.0))
      ->default_str("");
  c->add_option("--remove", s->options.remove,
                "breadcrumbs*: share of entries, the largest, that go first")
      ->check(CLI::Range(0.0, 0.999));
  c->add_option("--granularity", s->granularity,
                "breadcrumbs*: shares are of each row or of a whole tensor")
      ->check(CLI::IsMember({"row", "tensor"}));
  c->add_option("--sign", s->options.majority_sign_method, "How ties* and dare_ties* elect signs")
      ->check(CLI::IsMember({"total", "frequency"}));
  c->add_option("--rank", s->options.svd_rank,
                "Rank of the result of svd and *_svd, and of exact (0: whatever is needed)")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--energy", s->options.energy,
                "exact: the smallest ranks that keep this share of the squared singular values")
      ->check(CLI::Range(0.0, 1.0));
  c->add_option("--svd-clamp", s->options.svd_clamp,
                "Quantile at which svd and *_svd cut the entries of its factors; below 0: none");
  c->add_option("--seed", s->options.seed, "Of the random parts of dare_*");
  c->add_option("--output", s->output, "New adapter folder")->required();
  c->add_flag("--json", s->json, "Print JSON");
  c->callback([&run, s, unused, c] { run = [s, unused, c] { return combine(*s, *c); }; });
}

}  // namespace cli
