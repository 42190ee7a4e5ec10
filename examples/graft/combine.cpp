#include "graft/compose/combine.hpp"

#include <CLI/CLI.hpp>
#include <cmath>

#include "graft/compose/convert.hpp"
#include "labels.hpp"
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
  bool json = false;
};

/// What the heads of adapters are for: one thing, which some of them may lack.
struct Heads {
  std::vector<bool> there;
  std::optional<Labels> labels;
};
/// @throws ValueError if they have heads for different things
Heads heads_of(const std::vector<std::string>& adapters) {
  Heads heads;
  for (const auto& from : adapters) {
    auto own = load_labels(adapter_folder(from));
    heads.there.push_back(own.has_value());
    if (!own) continue;
    if (heads.labels && (own->task != heads.labels->task || own->names != heads.labels->names))
      throw graft::ValueError(
          concat("--adapter: the head of ", from, " is for other classes than that of another"));
    heads.labels = std::move(own);
  }
  return heads;
}

int combine(const CombineSettings& s) {
  if (!s.weights.empty() && s.weights.size() != s.adapters.size())
    throw graft::ValueError(
        concat("--weights: ", s.weights.size(), " weights for ", s.adapters.size(), " adapters"));
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
  const auto weights = s.weights.empty() ? std::vector<double>(names.size(), 1.0) : s.weights;
  double sum = 0;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (heads.there[i]) sum += weights[i];
  if (!opened.drawn.empty() && std::abs(sum - 1) > 1e-6)
    throw graft::ValueError(concat(
        "--weights: they add up to ", format_number(sum, "%g"),
        "; adapters with a head that the model does not have take weights that add up to 1"));
  std::string result = "combined";
  while (adapters.contains(result)) result += "_";
  auto& set = graft::add_weighted_adapter(adapters, names, weights, result, s.options);
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
  c->add_option("--weights", s->weights,
                "A number for each adapter, separated by commas; may be negative. Default: all 1")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->delimiter(',');
  c->add_option("--mode", s->options.combination_type,
                "exact: the weighted sum of what the adapters do to the weights, for any method "
                "that merges. The others are Hugging Face PEFT's combination_type, for LoRA")
      ->check(CLI::IsMember({"exact", "cat", "linear", "svd", "ties", "ties_svd", "dare_linear",
                             "dare_ties", "dare_linear_svd", "dare_ties_svd", "magnitude_prune",
                             "magnitude_prune_svd"}));
  c->add_option("--density", s->options.density,
                "Share of entries that ties, dare_* and magnitude_prune keep");
  c->add_option("--sign", s->options.majority_sign_method, "How ties elects signs")
      ->check(CLI::IsMember({"total", "frequency"}));
  c->add_option("--rank", s->options.svd_rank,
                "Rank of the result of *_svd, and of exact (0: whatever is needed)")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--energy", s->options.energy,
                "exact: the smallest ranks that keep this share of the squared singular values")
      ->check(CLI::Range(0.0, 1.0));
  c->add_option("--svd-clamp", s->options.svd_clamp,
                "Quantile at which *_svd cuts the entries of its factors; below 0: none");
  c->add_option("--seed", s->options.seed, "Of the random parts of dare_*");
  c->add_option("--output", s->output, "New adapter folder")->required();
  c->add_flag("--json", s->json, "Print JSON");
  c->callback([&run, s, unused] { run = [s, unused] { return combine(*s); }; });
}

}  // namespace cli
