#include <algorithm>
#include <set>

#include "graft/compose/method_abilities.hpp"
#include "session.hpp"

namespace cli {
namespace {

using graft::MethodAbilities;

struct Column {
  const char* name;
  bool MethodAbilities::*value;
};
constexpr Column kColumns[] = {
    {"linear", &MethodAbilities::linear},
    {"conv", &MethodAbilities::conv},
    {"embedding", &MethodAbilities::embedding},
    {"norm", &MethodAbilities::norm},
    {"merge", &MethodAbilities::merge},
    {"unmerge", &MethodAbilities::unmerge},
    {"disable", &MethodAbilities::disable},
    {"several", &MethodAbilities::several},
    {"rows", &MethodAbilities::rows},
    {"weighted", &MethodAbilities::weighted},
    {"quantised", &MethodAbilities::quantised},
    {"rank_pattern", &MethodAbilities::rank_pattern},
    {"layers", &MethodAbilities::layers},
    {"modules_to_save", &MethodAbilities::modules_to_save},
    {"tied", &MethodAbilities::tied},
};

}  // namespace

/// Every tuner of Hugging Face PEFT: whether it is here, and what it can do, found out by trying.
int show_parity(bool json) {
  const auto& registry = methods();
  graft::io::Json list = graft::io::Json::array();
  std::vector<std::vector<std::string>> rows{{"tuner", "state"}};
  for (const auto& column : kColumns) rows[0].push_back(column.name);
  std::size_t present = 0;
  for (const auto tuner : graft::kPeftTuners) {
    const bool here = registry.contains(tuner);
    present += here ? 1 : 0;
    rows.push_back({std::string(tuner), here ? "yes" : "missing"});
    graft::io::Json item{{"peft_type", std::string(tuner)}, {"present", here}};
    if (here) {
      const auto abilities = graft::abilities_of(registry, registry.at(tuner));
      auto& shown = item["abilities"] = graft::io::Json::object();
      for (const auto& column : kColumns) {
        const bool yes = abilities.*column.value;
        shown[column.name] = yes;
        rows.back().push_back(yes ? "yes" : "-");
      }
    }
    list.push_back(std::move(item));
  }
  if (json) {
    print_json({{"peft", "0.21"}, {"present", present}, {"tuners", list}});
    return 0;
  }
  std::vector<std::size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      line += row[c];
      if (c + 1 < row.size()) line.append(widths[c] - row[c].size() + 2, ' ');
    }
    say(line);
  }
  say(graft::concat(present, " of ", graft::kPeftTuners.size(), " tuners of PEFT 0.21"));
  return 0;
}

}  // namespace cli
