#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1 {

/// A value of a configuration as JSON knows it: null, boolean, number, text, list or map.
class ConfigValue {
 public:
  using List = std::vector<ConfigValue>;
  using Map = std::map<std::string, ConfigValue>;

  ConfigValue() = default;
  ConfigValue(std::nullptr_t) {}
  ConfigValue(bool value) : kind_(Kind::boolean), boolean_(value) {}
  template <std::integral Integer>
    requires(!std::same_as<Integer, bool>)
  ConfigValue(Integer value) : kind_(Kind::integer), integer_(static_cast<std::int64_t>(value)) {}
  template <std::floating_point Real>
  ConfigValue(Real value) : kind_(Kind::number), number_(static_cast<double>(value)) {}
  ConfigValue(std::string value) : kind_(Kind::text), text_(std::move(value)) {}
  ConfigValue(const char* value) : kind_(Kind::text), text_(value) {}
  ConfigValue(List value) : kind_(Kind::list), list_(std::move(value)) {}
  ConfigValue(Map value) : kind_(Kind::map), map_(std::move(value)) {}
  ConfigValue(const ConfigValue&);
  ConfigValue(ConfigValue&&) noexcept;
  ConfigValue& operator=(const ConfigValue&);
  ConfigValue& operator=(ConfigValue&&) noexcept;
  ~ConfigValue();

  bool is_null() const { return kind_ == Kind::null; }
  /// The value as bool, std::int64_t, double, std::string, List or Map; null if it is of another
  /// kind.
  template <class U>
  const U* get_if() const {
    if constexpr (std::same_as<U, bool>)
      return kind_ == Kind::boolean ? &boolean_ : nullptr;
    else if constexpr (std::same_as<U, std::int64_t>)
      return kind_ == Kind::integer ? &integer_ : nullptr;
    else if constexpr (std::same_as<U, double>)
      return kind_ == Kind::number ? &number_ : nullptr;
    else if constexpr (std::same_as<U, std::string>)
      return kind_ == Kind::text ? &text_ : nullptr;
    else if constexpr (std::same_as<U, List>)
      return kind_ == Kind::list ? &list_ : nullptr;
    else {
      static_assert(std::same_as<U, Map>);
      return kind_ == Kind::map ? &map_ : nullptr;
    }
  }
  template <class U>
  U* get_if() {
    return const_cast<U*>(std::as_const(*this).get_if<U>());
  }
  bool is_number() const { return kind_ == Kind::integer || kind_ == Kind::number; }
  /// Number as a double. @throws ValueError if it is none.
  double number() const {
    if (kind_ == Kind::integer) return static_cast<double>(integer_);
    if (kind_ == Kind::number) return number_;
    throw ValueError(concat("config: expected a number, found ", kind()));
  }
  const char* kind() const {
    static constexpr const char* kKinds[] = {"null",   "a boolean", "an integer", "a number",
                                             "a text", "a list",    "a map"};
    return kKinds[static_cast<std::size_t>(kind_)];
  }
  friend bool operator==(const ConfigValue&, const ConfigValue&) = default;

 private:
  enum class Kind : unsigned char { null, boolean, integer, number, text, list, map };

  // A member for each kind; those of other kinds are as they begin. A std::variant of them costs
  // everyone who includes this two thousand instantiations.
  Kind kind_ = Kind::null;
  bool boolean_ = false;
  std::int64_t integer_ = 0;
  double number_ = 0;
  std::string text_;
  List list_;
  Map map_;
};

/// Which modules a method goes to: a list of name suffixes, one regular expression that must match
/// the whole path, or the word "all-linear" (no convolutions, no heads). Empty: the defaults of the
/// architecture.
struct TargetModules {
  std::vector<std::string> names;
  std::string pattern;

  TargetModules() = default;
  TargetModules(std::initializer_list<std::string> list) : names(list) {}
  TargetModules(std::vector<std::string> list) : names(std::move(list)) {}
  TargetModules(std::string regex) : pattern(std::move(regex)) {}
  TargetModules(const char* regex) : pattern(regex) {}
  bool empty() const { return names.empty() && pattern.empty(); }
  bool all_linear() const {
    return pattern == "all-linear" || (names.size() == 1 && names[0] == "all-linear");
  }
  friend bool operator==(const TargetModules&, const TargetModules&) = default;
};

namespace detail {

[[noreturn]] GRAFT_KERNEL void config_mismatch(const std::string& key, const char* expected,
                                               const ConfigValue& found);

GRAFT_KERNEL void read_config(const std::string& key, const ConfigValue& v, bool& out);
template <std::integral Integer>
  requires(!std::same_as<Integer, bool>)
void read_config(const std::string& key, const ConfigValue& v, Integer& out) {
  if (const auto* i = v.get_if<std::int64_t>())
    out = static_cast<Integer>(*i);
  else if (const auto* d = v.get_if<double>();
           d != nullptr && *d == static_cast<double>(static_cast<std::int64_t>(*d)))
    out = static_cast<Integer>(*d);
  else
    config_mismatch(key, "an integer", v);
}
template <std::floating_point Real>
void read_config(const std::string& key, const ConfigValue& v, Real& out) {
  if (!v.is_number()) config_mismatch(key, "a number", v);
  out = static_cast<Real>(v.number());
}
GRAFT_KERNEL void read_config(const std::string& key, const ConfigValue& v, std::string& out);
inline void read_config(const std::string&, const ConfigValue& v, ConfigValue& out) { out = v; }
template <class U>
void read_config(const std::string& key, const ConfigValue& v, std::optional<U>& out);
template <class U>
void read_config(const std::string& key, const ConfigValue& v, std::vector<U>& out);
template <class U>
void read_config(const std::string& key, const ConfigValue& v, std::map<std::string, U>& out);

GRAFT_KERNEL void read_config(const std::string& key, const ConfigValue& v, TargetModules& out);
template <class U>
void read_config(const std::string& key, const ConfigValue& v, std::optional<U>& out) {
  if (v.is_null()) {
    out.reset();
  } else {
    U value{};
    read_config(key, v, value);
    out = std::move(value);
  }
}
template <class U>
void read_config(const std::string& key, const ConfigValue& v, std::vector<U>& out) {
  out.clear();
  if (v.is_null()) return;
  const auto* list = v.get_if<ConfigValue::List>();
  if (list == nullptr) {  // PEFT writes a single value where a list is meant
    U value{};
    read_config(key, v, value);
    out.push_back(std::move(value));
    return;
  }
  for (const auto& item : *list) {
    U value{};
    read_config(key, item, value);
    out.push_back(std::move(value));
  }
}
template <class U>
void read_config(const std::string& key, const ConfigValue& v, std::map<std::string, U>& out) {
  out.clear();
  if (v.is_null()) return;
  const auto* map = v.get_if<ConfigValue::Map>();
  if (map == nullptr) config_mismatch(key, "a map", v);
  for (const auto& [name, item] : *map) read_config(concat(key, ".", name), item, out[name]);
}

template <class U>
ConfigValue write_config(const U& value) {
  return ConfigValue(value);
}
GRAFT_KERNEL ConfigValue write_config(const TargetModules& targets);
template <class U>
ConfigValue write_config(const std::vector<U>& values) {
  ConfigValue::List list;
  for (const auto& v : values) list.push_back(write_config(v));
  return list;
}
template <class U>
ConfigValue write_config(const std::optional<U>& value) {
  return value ? write_config(*value) : ConfigValue();
}
template <class U>
ConfigValue write_config(const std::map<std::string, U>& values) {
  ConfigValue::Map map;
  for (const auto& [name, v] : values) map[name] = write_config(v);
  return map;
}

}  // namespace detail

/// Visitor that fills the fields of a configuration from a map; a field that the map lacks keeps
/// its value.
class ConfigReader {
 public:
  explicit ConfigReader(const ConfigValue::Map& map) : map_(map) {}
  template <class Field>
  void operator()(const char* key, Field& field) const {
    const ConfigValue* const value = find(key);
    if (value == nullptr) return;
    if constexpr (
        !std::is_same_v<Field, ConfigValue> && !requires { field.reset(); } &&
        !requires { field.clear(); } && !std::is_same_v<Field, TargetModules>) {
      if (value->is_null()) return;
    }
    if constexpr (std::is_same_v<Field, std::string>) {
      if (value->is_null()) return;
    }
    detail::read_config(key, *value, field);
  }

 private:
  /// Null if there is none.
  const ConfigValue* find(const char* key) const;

  const ConfigValue::Map& map_;
};

/// Visitor that writes the fields of a configuration into a map.
class ConfigWriter {
 public:
  /// `every`: also fields that only graft knows where they have their default.
  explicit ConfigWriter(ConfigValue::Map& map, bool every = false) : map_(map), every_(every) {}
  template <class Field>
  void operator()(const char* key, Field& field) const {
    put(key, detail::write_config(field));
  }
  bool every() const { return every_; }

 private:
  void put(const char* key, ConfigValue value) const;

  ConfigValue::Map& map_;
  bool every_;
};

namespace detail {

/// Puts a configuration whose gaps the model filled into the set that it belongs to.
template <class Config, class Set>
void keep_config(const Config& config, Set& set) {
  auto copy = config;
  ConfigWriter writer(set.mutable_config());
  copy.fields(writer);
}

}  // namespace detail

/// A configuration inside of another one: `value` is a map with fields of it, or null for the
/// defaults. @throws ValueError for anything else and for what its `validate` refuses.
template <class Config>
Config nested_config(const char* key, const ConfigValue& value) {
  Config config;
  if (const auto* map = value.get_if<ConfigValue::Map>()) {
    ConfigReader reader(*map);
    config.fields(reader);
  } else if (!value.is_null()) {
    detail::config_mismatch(key, "a map", value);
  }
  if constexpr (requires { config.validate(); }) config.validate();
  return config;
}

/// A field that only graft knows: files have it only where it is not the default, so that PEFT,
/// which warns of fields that it does not know, finds its own.
template <class Visitor, class Field>
void optional_field(Visitor& v, const char* key, Field& field,
                    const std::type_identity_t<Field>& standard) {
  if constexpr (std::is_same_v<Visitor, ConfigWriter>) {
    if (!v.every() && field == standard) return;
  }
  v(key, field);
}

/// A list that PEFT writes as null when it is empty.
template <class Visitor, class Element>
void nullable_field(Visitor& v, const char* key, std::vector<Element>& list) {
  if constexpr (std::is_same_v<Visitor, ConfigWriter>) {
    const ConfigValue none;
    if (list.empty()) return v(key, none);
  }
  v(key, list);
}

/// Which fields of a Selection PEFT's class of a method has too.
struct SelectionInPeft {
  bool exclude_modules = true;
  bool layers = true;  ///< layers_to_transform and layers_pattern
  bool rank_pattern = true;
  bool alpha_pattern = true;
};

/// Which sites a method goes to, and exceptions by layer; the fields that nearly all methods of
/// PEFT share.
struct Selection {
  TargetModules exclude_modules;
  std::vector<Index> layers_to_transform;            ///< empty: all
  std::vector<std::string> layers_pattern;           ///< names of the list of layers; empty: any
  std::vector<std::string> modules_to_save;          ///< trained whole and saved with the adapter
  std::map<std::string, ConfigValue> rank_pattern;   ///< regex on the path's end -> rank
  std::map<std::string, ConfigValue> alpha_pattern;  ///< regex on the path's end -> alpha

  /// Those that PEFT lacks are as `optional_field` has it.
  template <class Visitor>
  void fields(Visitor& v, SelectionInPeft in_peft = {}) {
    const auto meant = [&](bool known, const auto& field) {
      if constexpr (std::is_same_v<Visitor, ConfigWriter>)
        return known || v.every() || !field.empty();
      else
        return true;
    };
    if (meant(in_peft.exclude_modules, exclude_modules)) v("exclude_modules", exclude_modules);
    if (meant(in_peft.layers, layers_to_transform))
      nullable_field(v, "layers_to_transform", layers_to_transform);
    if (meant(in_peft.layers, layers_pattern)) nullable_field(v, "layers_pattern", layers_pattern);
    nullable_field(v, "modules_to_save", modules_to_save);
    if (meant(in_peft.rank_pattern, rank_pattern)) v("rank_pattern", rank_pattern);
    if (meant(in_peft.alpha_pattern, alpha_pattern)) v("alpha_pattern", alpha_pattern);
  }
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/impl/config_value_impl.hpp"
#endif
