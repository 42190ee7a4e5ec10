#include "graft/compose/site_filter.hpp"

#include <catch2/catch.hpp>

namespace {

using graft::ConfigValue;
using graft::ModelInfo;
using graft::SiteFilter;
using graft::SiteRules;

ModelInfo llama_info() {
  ModelInfo info;
  info.architecture = "llama";
  info.output_layers = {"lm_head"};
  return info;
}

const std::string kQuery = "model.layers.3.self_attn.q_proj";
const std::string kDown = "model.layers.3.mlp.down_proj";

SiteRules rules_of(graft::TargetModules targets) {
  return {.peft_type = "LORA", .has_targets = true, .targets = std::move(targets)};
}

}  // namespace

TEST_CASE("a filter takes the sites that its targets name") {
  const SiteFilter by_name(rules_of({"q_proj"}), {}, llama_info());
  CHECK(by_name.wants(kQuery, true));
  CHECK_FALSE(by_name.wants(kDown, true));
  CHECK(by_name.by_names());

  graft::TargetModules pattern;
  pattern.pattern = ".*\\.mlp\\..*";
  CHECK(SiteFilter(rules_of(pattern), {}, llama_info()).wants(kDown, true));
  CHECK_FALSE(SiteFilter(rules_of(pattern), {}, llama_info()).wants(kQuery, true));
}

TEST_CASE("all-linear means every linear site but the output layers") {
  const SiteFilter filter(rules_of("all-linear"), {}, llama_info());
  CHECK(filter.wants(kQuery, true));
  CHECK_FALSE(filter.wants("model.norm", false));
  CHECK_FALSE(filter.wants("lm_head", true));
  CHECK_FALSE(filter.by_names());
}

TEST_CASE("without targets the architecture decides, and an empty list means no module") {
  const SiteFilter defaults(rules_of({}), {}, llama_info());
  CHECK(defaults.wants(kQuery, true));
  CHECK_FALSE(defaults.wants(kDown, true));
  const SiteFilter none(rules_of({}), {{"target_modules", ConfigValue::List{}}}, llama_info());
  CHECK_FALSE(none.wants(kQuery, true));
}

TEST_CASE("a method that chooses by role or goes everywhere does so only without targets") {
  auto rules = rules_of({});
  rules.by_role = true;
  CHECK(SiteFilter(rules, {}, llama_info()).wants(kDown, true));
  CHECK(SiteFilter(rules, {}, llama_info()).wants("lm_head", true));
  rules.targets = {"q_proj"};
  CHECK_FALSE(SiteFilter(rules, {}, llama_info()).wants(kDown, true));

  rules = rules_of({});
  rules.every_site = true;
  CHECK(SiteFilter(rules, {}, llama_info()).wants("model.norm", false));
  CHECK_FALSE(SiteFilter(rules, {}, llama_info()).wants("lm_head", true));
}

TEST_CASE("a method's own choice stands in for targets") {
  SiteRules rules{.peft_type = "OWN"};
  rules.chooses = [](const std::string& path) { return path == kDown; };
  const SiteFilter filter(rules, {}, llama_info());
  CHECK(filter.wants(kDown, true));
  CHECK_FALSE(filter.wants(kQuery, true));
  CHECK_FALSE(filter.by_names());
}

TEST_CASE("excluded modules and other layers are left out") {
  auto rules = rules_of("all-linear");
  rules.select.exclude_modules = {"down_proj"};
  CHECK_FALSE(SiteFilter(rules, {}, llama_info()).wants(kDown, true));
  CHECK(SiteFilter(rules, {}, llama_info()).wants(kQuery, true));
  rules.select.layers_to_transform = {2};
  CHECK_FALSE(SiteFilter(rules, {}, llama_info()).wants(kQuery, true));
}

TEST_CASE("a site has a configuration of its own where a pattern gives it a rank or an alpha") {
  auto rules = rules_of("all-linear");
  rules.select.rank_pattern = {{"q_proj", ConfigValue(4)}};
  rules.select.alpha_pattern = {{"down_proj", ConfigValue(2.5)}};
  const SiteFilter filter(rules, {{"r", 8}, {"lora_alpha", 16}}, llama_info());
  CHECK(filter.config_of(kQuery).value().at("r") == ConfigValue(4));
  CHECK(filter.config_of(kQuery).value().at("lora_alpha") == ConfigValue(16));
  CHECK(filter.config_of(kDown).value().at("lora_alpha") == ConfigValue(2.5));
  CHECK_FALSE(filter.config_of("model.layers.3.mlp.up_proj").has_value());
}

TEST_CASE("targets that match nothing are named beside what there is") {
  const SiteFilter filter(rules_of({"attention", "dense"}), {}, llama_info());
  CHECK_THROWS_WITH(
      filter.fail({"a", "b", "c", "d", "e"}),
      "LORA: target modules attention, dense match none of the 5 modules (a, b, c, d, …)");
  CHECK_THROWS_AS(filter.fail({"a"}), graft::ValueError);
}
