#include <cstdio>

#include "common.hpp"

namespace cli {

void add_methods(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("methods", "List the adapter methods");
  auto json = std::make_shared<bool>(false);
  c->add_flag("--json", *json, "Print a JSON array");
  c->callback([&run, json] {
    run = [json] {
      graft::io::Json list = graft::io::Json::array();
      if (!*json)
        std::printf("%-18s %-22s %-12s %-24s %-28s %-7s %s\n", "peft_type", "name", "family",
                    "sites", "trained a site", "merges", "paper");
      for (const auto& e : methods().entries()) {
        const auto& i = e.info;
        const auto text = [](std::string_view t) { return std::string(t); };
        list.push_back({{"peft_type", text(i.peft_type)},
                        {"name", text(i.name)},
                        {"family", text(i.family)},
                        {"sites", text(i.sites)},
                        {"parameters", text(i.parameters)},
                        {"mergeable", i.mergeable},
                        {"peft", i.in_peft},
                        {"paper", text(i.paper)}});
        if (!*json)
          std::printf("%-18s %-22s %-12s %-24s %-28s %-7s %s\n", text(i.peft_type).c_str(),
                      text(i.name).c_str(), text(i.family).c_str(), text(i.sites).c_str(),
                      text(i.parameters).c_str(), i.mergeable ? "yes" : "no",
                      text(i.paper).c_str());
      }
      if (*json) print_json(list);
      return 0;
    };
  });
}

}  // namespace cli
