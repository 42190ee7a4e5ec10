#include <cstdio>

#include "common.hpp"
#include "graft/io/gguf.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::Index;
using graft::io::Json;

struct Row {
  std::string name, shape, type;
  Index elements = 0;
  std::size_t bytes = 0;
};

std::string shape_text(const std::vector<Index>& shape) {
  return graft::Shape(shape.begin(), shape.end()).text();
}

/// Metadata values as short texts; long arrays by their length.
std::string brief(const Json& value) {
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  if (value.is_array() && value.size() > 8) return graft::concat("array of ", value.size());
  for (char& c : text)
    if (c == '\n') c = ' ';
  return text.size() > 100 ? text.substr(0, 97) + "..." : text;
}

int inspect(const std::string& path, bool json) {
  if (!fs::exists(path)) throw graft::IoError(path + ": no such file or folder");
  std::vector<Row> rows;
  Json metadata = Json::object();
  fs::path file = path;
  if (fs::is_directory(file)) {
    for (const char* name : {"adapter_config.json", "config.json"})
      if (fs::exists(file / name)) metadata = graft::io::read_json(file / name);
    if (fs::exists(file / "adapter_model.safetensors")) file /= "adapter_model.safetensors";
  }
  const bool gguf = file.extension() == ".gguf";
  if (gguf) {
    const auto opened = graft::io::GgufFile::open(file);
    for (const auto& [key, value] : opened.metadata().entries())
      std::visit(
          [&, name = &key](const auto& v) {
            if constexpr (requires { Json(v); }) metadata[*name] = Json(v);
          },
          value);
    for (const auto& t : opened.tensors())
      rows.push_back({t.name, shape_text(t.shape), t.type_name(), t.elements(), t.data.size()});
  } else {
    const auto opened = graft::io::SafetensorsModel::open(file);
    for (const auto& t : opened.tensors())
      rows.push_back({t.name, shape_text(t.shape), std::string(graft::io::dtype_info(t.dtype).name),
                      t.elements(), t.data.size()});
  }
  Index elements = 0;
  std::size_t bytes = 0;
  for (const auto& r : rows) {
    elements += r.elements;
    bytes += r.bytes;
  }
  if (json) {
    Json tensors = Json::array();
    for (const auto& r : rows)
      tensors.push_back({{"name", r.name},
                         {"shape", r.shape},
                         {"dtype", r.type},
                         {"elements", r.elements},
                         {"bytes", r.bytes}});
    print_json({{"file", file.string()},
                {"metadata", metadata},
                {"tensors", tensors},
                {"parameters", elements},
                {"bytes", bytes}});
    return 0;
  }
  std::printf("%s\n\n", file.string().c_str());
  for (const auto& [key, value] : metadata.items())
    std::printf("  %-44s %s\n", key.c_str(), brief(value).c_str());
  std::size_t width = 6;
  for (const auto& r : rows) width = std::max(width, r.name.size());
  std::printf("\n  %-*s %-18s %-6s %12s\n", static_cast<int>(width), "tensor", "shape", "type",
              "bytes");
  for (const auto& r : rows)
    std::printf("  %-*s %-18s %-6s %12zu\n", static_cast<int>(width), r.name.c_str(),
                r.shape.c_str(), r.type.c_str(), r.bytes);
  std::printf("\n  %zu tensors, %td parameters, %s\n", rows.size(), elements, mib(bytes).c_str());
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
