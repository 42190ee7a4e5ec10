#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "graft/adapters/method.hpp"
#include "graft/compose/parameter_formula.hpp"

namespace graft::inline v0_1 {

/// The number of trained elements that MethodInfo states for an adapter at these sites of a model,
/// with this configuration; a norm of width n counts as in = 1, out = n; empty: there is no closed
/// form. @throws ValueError for a formula that is none or that asks for what the configuration does
/// not have
template <std::floating_point T>
std::optional<Index> stated_parameters(const MethodInfo& info, const ConfigValue::Map& config,
                                       const BasicSiteTable<T>& table,
                                       const std::vector<std::string>& paths) {
  const auto meant = [&](const auto* site) {
    return std::find(paths.begin(), paths.end(), site->path()) != paths.end();
  };
  const bool tables_only = std::none_of(table.linear.begin(), table.linear.end(), meant) &&
                           std::any_of(table.embedding.begin(), table.embedding.end(), meant) &&
                           !info.embedding_parameters.empty();
  const ParameterFormula formula(tables_only ? info.embedding_parameters : info.parameters);
  if (!formula.closed()) return std::nullopt;
  const auto number = [](Index n) { return static_cast<double>(n); };
  ParameterFormula::Values values{
      {"d", number(table.info.hidden_size)},     {"layers", number(table.info.layers)},
      {"heads", number(table.info.heads)},       {"kv_heads", number(table.info.kv_heads)},
      {"head_dim", number(table.info.head_dim)}, {"weights", 0}};
  for (const auto& [key, value] : config)
    if (value.is_number()) values[key] = value.number();
  for (const auto* s : table.linear)
    if (meant(s)) values["weights"] += number(s->in_features() * s->out_features());
  double total = formula.once(values);
  for (const auto& path : paths) {
    const auto size = [&](Index in, Index out, bool bias = false) {
      values["in"] = number(in);
      values["out"] = values["width"] = number(out);
      values["bias"] = bias ? 1 : 0;
    };
    size(table.info.hidden_size, table.info.hidden_size);
    for (const auto* s : table.linear)
      if (s->path() == path)
        size(s->in_features(), s->out_features(), static_cast<bool>(s->base().bias()));
    const bool prompt = table.prompt != nullptr && table.prompt->path() == path;
    for (const auto* s : table.embedding)
      if (s->path() == path && !prompt) size(s->table().rows(), s->table().dim());
    for (const auto* s : table.norm)
      if (s->path() == path) size(1, s->norm().weight.size(), static_cast<bool>(s->norm().bias));
    total += formula.per_site(values);
  }
  return static_cast<Index>(total);
}

}  // namespace graft::inline v0_1
