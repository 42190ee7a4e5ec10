#pragma once

#include <cmath>

#include "graft/adapters/config_value.hpp"
#include "graft/io/json.hpp"

namespace graft::inline v0_1 {

/// JSON as a configuration value. Numbers too large for 64 bits become doubles.
inline ConfigValue config_value(const io::Json& json) {
  switch (json.type()) {
    case io::Json::value_t::boolean:
      return json.get<bool>();
    case io::Json::value_t::number_integer:
      return json.get<std::int64_t>();
    case io::Json::value_t::number_unsigned: {
      const auto value = json.get<std::uint64_t>();
      if (value <= static_cast<std::uint64_t>(INT64_MAX)) return static_cast<std::int64_t>(value);
      return static_cast<double>(value);
    }
    case io::Json::value_t::number_float:
      return json.get<double>();
    case io::Json::value_t::string:
      return json.get<std::string>();
    case io::Json::value_t::array: {
      ConfigValue::List list;
      for (const auto& item : json) list.push_back(config_value(item));
      return list;
    }
    case io::Json::value_t::object: {
      ConfigValue::Map map;
      for (const auto& [key, value] : json.items()) map[key] = config_value(value);
      return map;
    }
    default:
      return nullptr;
  }
}

/// A configuration value as JSON.
inline io::Json config_json(const ConfigValue& value) {
  if (const auto* b = value.get_if<bool>()) return *b;
  if (const auto* i = value.get_if<std::int64_t>()) return *i;
  if (const auto* d = value.get_if<double>()) return *d;
  if (const auto* s = value.get_if<std::string>()) return *s;
  if (const auto* list = value.get_if<ConfigValue::List>()) {
    io::Json json = io::Json::array();
    for (const auto& item : *list) json.push_back(config_json(item));
    return json;
  }
  if (const auto* map = value.get_if<ConfigValue::Map>()) {
    io::Json json = io::Json::object();
    for (const auto& [key, item] : *map) json[key] = config_json(item);
    return json;
  }
  return nullptr;
}

/// Reads adapter_config.json (or any JSON object). @throws IoError that names the file.
inline ConfigValue::Map read_config_file(const std::filesystem::path& path) {
  auto value = config_value(io::read_json(path));
  auto* map = value.get_if<ConfigValue::Map>();
  if (map == nullptr)
    throw IoError(concat(path.string(), ": expected a JSON object, found ", value.kind()));
  return std::move(*map);
}

}  // namespace graft::inline v0_1
