#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <variant>

#include "command.hpp"
#include "graft/io/gguf.hpp"
#include "graft/io/safetensors.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;
using graft::io::Json;

struct Row {
  std::string name;
  std::vector<Index> shape;
  std::string type;
  Index elements = 0;
  std::size_t bytes = 0;
};

/// What a file or folder holds.
struct Content {
  std::string format;
  Json metadata = Json::object();
  std::vector<Row> rows;
};

struct Total {
  Index tensors = 0, elements = 0;
  std::size_t bytes = 0;
  void add(const Row& row) {
    ++tensors;
    elements += row.elements;
    bytes += row.bytes;
  }
};

/// A metadata value as JSON; a long array (a vocabulary) by its length.
Json metadata_json(const graft::io::GgufValue& value) {
  return std::visit(
      [&](const auto& v) -> Json {
        if constexpr (graft::io::detail::IsVector<std::decay_t<decltype(v)>>::value) {
          if (v.size() > 16) return concat("array of ", v.size());
          Json list = Json::array();
          for (auto&& element : v)
            list.push_back(static_cast<typename std::decay_t<decltype(v)>::value_type>(element));
          return list;
        } else {
          return v;
        }
      },
      value);
}

Content read_gguf(const fs::path& path) {
  const auto file = graft::io::GgufFile::open(path);
  Content content{concat("GGUF version ", file.version()), Json::object(), {}};
  for (const auto& [key, value] : file.metadata().entries())
    content.metadata[key] = metadata_json(value);
  for (const auto& t : file.tensors())
    content.rows.push_back({t.name, t.shape, t.type_name(), t.elements(), t.data.size()});
  return content;
}

Content read(const fs::path& path) {
  if (!fs::exists(path)) throw graft::IoError(path.string() + ": no such file or folder");
  if (path.extension() == ".gguf" && !fs::is_directory(path)) return read_gguf(path);
  Content content{"safetensors", Json::object(), {}};
  fs::path file = path;
  if (fs::is_directory(path)) {
    const bool adapter = fs::exists(path / "adapter_config.json");
    content.format = adapter ? "adapter folder" : "model folder";
    const fs::path config = path / (adapter ? "adapter_config.json" : "config.json");
    if (fs::exists(config)) content.metadata = graft::io::read_json(config);
    if (adapter) file = path / "adapter_model.safetensors";
  }
  const auto opened = graft::io::SafetensorsModel::open(file);
  if (content.metadata.empty())
    for (const auto& [key, value] : opened.metadata()) content.metadata[key] = value;
  for (const auto& t : opened.tensors())
    content.rows.push_back({t.name, t.shape, std::string(graft::io::dtype_info(t.dtype).name),
                            t.elements(), t.data.size()});
  return content;
}

/// A value on one line, cut between two characters.
std::string brief(const Json& value) {
  std::string text = value.is_string() ? value.get<std::string>()
                                       : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  std::size_t end = std::min<std::size_t>(text.size(), 97);
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return end < text.size() ? text.substr(0, end) + "..." : text;
}

void print_content(const std::string& path, const Content& content, const Total& all,
                   const std::map<std::string, Total>& types) {
  say(concat(path, ": ", content.format, "\n"));
  int key_width = 0, width = 6, shape_width = 5;
  const auto widen = [](int& to, const std::string& text) {
    to = std::max(to, static_cast<int>(text.size()));
  };
  for (const auto& [key, value] : content.metadata.items()) widen(key_width, key);
  for (const auto& [key, value] : content.metadata.items())
    std::printf("  %-*s  %s\n", key_width, key.c_str(), brief(value).c_str());
  for (const auto& r : content.rows) {
    widen(width, r.name);
    widen(shape_width, Json(r.shape).dump());
  }
  std::printf("\n  %-*s  %-*s  %-5s %12s %12s\n", width, "tensor", shape_width, "shape", "dtype",
              "parameters", "bytes");
  for (const auto& r : content.rows)
    std::printf("  %-*s  %-*s  %-5s %12td %12zu\n", width, r.name.c_str(), shape_width,
                Json(r.shape).dump().c_str(), r.type.c_str(), r.elements, r.bytes);
  say("");
  for (const auto& [type, total] : types)
    std::printf("  %-5s %5td tensors, %s parameters, %s\n", type.c_str(), total.tensors,
                millions(total.elements).c_str(), mib(total.bytes).c_str());
  std::printf("  total %5td tensors, %s parameters (%td), %s\n", all.tensors,
              millions(all.elements).c_str(), all.elements, mib(all.bytes).c_str());
}

int inspect(const std::string& path, bool json) {
  const Content content = read(path);
  Total all;
  std::map<std::string, Total> types;
  for (const auto& r : content.rows) {
    all.add(r);
    types[r.type].add(r);
  }
  if (!json) {
    print_content(path, content, all, types);
    return 0;
  }
  Json tensors = Json::array(), by_type = Json::object();
  for (const auto& r : content.rows)
    tensors.push_back({{"name", r.name},
                       {"shape", r.shape},
                       {"dtype", r.type},
                       {"parameters", r.elements},
                       {"bytes", r.bytes}});
  for (const auto& [type, total] : types)
    by_type[type] = {
        {"tensors", total.tensors}, {"parameters", total.elements}, {"bytes", total.bytes}};
  print_json({{"path", path},
              {"format", content.format},
              {"metadata", content.metadata},
              {"tensors", tensors},
              {"dtypes", by_type},
              {"parameters", all.elements},
              {"bytes", all.bytes}});
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Command& run) {
  auto* c =
      app.add_subcommand("inspect", "What a model file, model folder or adapter folder holds");
  auto path = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  c->add_option("path", *path, "GGUF file, safetensors file, model or adapter folder")->required();
  c->add_flag("--json", *json, "Print one JSON object");
  c->callback([&run, path, json] { run = [path, json] { return inspect(*path, *json); }; });
}

}  // namespace cli
