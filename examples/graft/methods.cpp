// The methods, compiled once for all subcommands, and the command that lists them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <optional>

#include "graft/compose/methods.hpp"
#include "graft/compose/stated_parameters.hpp"
#include "session.hpp"

template class graft::BasicAdapterModel<float>;

namespace cli {
namespace {

std::string text(std::string_view view) { return std::string(view); }

/// A formula as it is read; one without a closed form is its remark.
std::string formula(const graft::MethodInfo& info) {
  return text(info.parameters.substr(info.parameters.starts_with("; ") ? 2 : 0));
}

/// Whether adapters of the method merge, with its condition.
std::string merges(const graft::MethodInfo& info) {
  if (!info.mergeable) return "no";
  return info.merge_unless.empty() ? "yes" : graft::concat("unless ", info.merge_unless);
}

std::string folded(std::string_view name) {
  std::string result;
  for (const char c : name)
    if (c != '-' && c != '_' && c != ' ')
      result += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

int show_method(const graft::MethodEntry<float>& entry, bool json) {
  const auto& i = entry.info;
  if (json) {
    print_json({{"peft_type", text(i.peft_type)}, {"config", graft::config_json(entry.defaults)}});
    return 0;
  }
  say(graft::concat(i.name, " (", i.peft_type, ")", i.paper.empty() ? "" : ", ", i.paper,
                    "\nsites: ", i.sites, "\ntrained a site: ", formula(i), "\n",
                    i.mergeable ? "can be merged" : "cannot be merged",
                    i.merge_unless.empty() ? "" : " unless ", i.merge_unless,
                    "\n\nfields of adapter_config.json with their defaults:"));
  print_json(graft::config_json(entry.defaults));
  return 0;
}

/// Trained elements of a method with its default configuration on a model; empty where it cannot
/// be there. By the formula where that is closed: some methods take long to make.
std::optional<graft::Index> trained_on(const graft::MethodEntry<float>& entry,
                                       graft::SiteTable& sites) {
  try {
    std::vector<std::string> paths;
    if (entry.places.named) {
      const auto targets = graft::default_targets(entry.info.peft_type, sites.info.architecture);
      for (const auto* site : sites.linear)
        if (targets.all_linear() ? !sites.info.is_output_layer(site->path())
                                 : graft::matches(targets, site->path()))
          paths.push_back(site->path());
      if (const auto stated = stated_parameters(entry.info, entry.example, sites, paths))
        return stated;
    }
    graft::AdapterModel adapters(sites, methods());
    graft::TorchGenerator generator;
    return adapters.add("a", entry.example, generator).trainable_elements();
  } catch (const graft::Error&) {
    return std::nullopt;
  }
}

int list_methods(bool json, graft::SiteTable* sites) {
  graft::io::Json list = graft::io::Json::array();
  std::vector<std::vector<std::string>> rows{
      {"method", "name", "family", "sites", "trained a site", "merges", "PEFT", "paper"}};
  for (const auto& entry : methods().entries()) {
    const auto& i = entry.info;
    list.push_back({{"peft_type", text(i.peft_type)},
                    {"name", text(i.name)},
                    {"family", text(i.family)},
                    {"sites", text(i.sites)},
                    {"parameters", formula(i)},
                    {"mergeable", i.mergeable},
                    {"merge_unless", text(i.merge_unless)},
                    {"peft", i.in_peft},
                    {"paper", text(i.paper)}});
    std::string trained = "-";
    if (sites != nullptr) {
      list.back()["trained"] = nullptr;
      if (const auto count = trained_on(entry, *sites)) {
        trained = std::to_string(*count);
        list.back()["trained"] = *count;
      }
    }
    rows.push_back({text(i.peft_type), text(i.name), text(i.family), text(i.sites), formula(i),
                    merges(i), i.in_peft ? "yes" : "no", text(i.paper)});
    if (sites != nullptr) rows.back().insert(rows.back().begin() + 5, trained);
  }
  if (sites != nullptr) rows[0].insert(rows[0].begin() + 5, "in the model");
  if (json) {
    print_json(list);
    return 0;
  }
  // Columns in characters: some hold signs of several bytes.
  const auto width_of = [](const std::string& cell) {
    return static_cast<std::size_t>(std::count_if(cell.begin(), cell.end(), [](char c) {
      return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
    }));
  };
  std::vector<std::size_t> widths(rows[0].size());
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      line += row[c];
      if (c + 1 < row.size()) line.append(widths[c] - width_of(row[c]) + 2, ' ');
    }
    say(line);
  }
  return 0;
}

}  // namespace

const graft::MethodRegistry<float>& methods() { return graft::all_methods<float>(); }

std::string method_type(const std::string& name) {
  std::string known;
  for (const auto& entry : methods().entries()) {
    if (folded(entry.info.peft_type) == folded(name) || folded(entry.info.name) == folded(name))
      return text(entry.info.peft_type);
    known += (known.empty() ? "" : ", ") + text(entry.info.peft_type);
  }
  throw graft::ValueError(graft::concat("--method: '", name, "' is not known; known are ", known));
}

void add_methods(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("methods", "List the adapter methods, or show one");
  auto json = std::make_shared<bool>(false);
  auto peft = std::make_shared<bool>(false);
  auto name = std::make_shared<std::string>();
  auto model = std::make_shared<std::string>();
  c->add_flag("--peft", *peft, "What of Hugging Face PEFT there is, with the abilities of each");
  c->add_option("name", *name, "A method: its defaults as adapter_config.json");
  c->add_option("--model", *model, "Also what each trains with its defaults in this model");
  c->add_flag("--json", *json, "Print JSON");
  c->callback([&run, name, json, peft, model] {
    run = [name, json, peft, model] {
      if (*peft) return show_parity(*json);
      if (!name->empty()) return show_method(methods().at(method_type(*name)), *json);
      if (model->empty()) return list_methods(*json, nullptr);
      const auto loaded = load_model(*model);
      return list_methods(*json, &loaded->sites());
    };
  });
}

}  // namespace cli
