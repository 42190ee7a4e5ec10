// Cases of block formats and tokenisers.
#include <cstring>

#include "graft/io/gguf.hpp"
#include "graft/quant/format.hpp"
#include "graft/quant/nf4.hpp"
#include "graft/text/load_tokenizer.hpp"
#include "model_cache.hpp"
#include "support.hpp"

namespace conformance {
namespace {

std::vector<std::byte> bytes_of(const graft::io::TensorView& view) {
  return {view.data.begin(), view.data.end()};
}

}  // namespace

Result run_quant_case(const Case& c) {
  namespace quant = graft::quant;
  const auto file = SafetensorsFile::open(c.folder / "case.safetensors");
  Checker check(tolerance_of(c.json));
  const auto expected = graft::io::to_f64(file.at("value"));
  const auto raw = bytes_of(file.at("raw"));
  if (c.json.contains("ggml_type")) {
    const auto format = quant::format_of_ggml_type(c.json.at("ggml_type").get<std::uint32_t>());
    if (!format) throw Unsupported{concat("ggml type ", c.json.at("ggml_type").get<int>())};
    const auto columns = c.json.at("row_length").get<Index>(),
               rows = c.json.at("rows").get<Index>();
    const Index row = quant::row_bytes(*format, columns);
    std::vector<float> values(static_cast<std::size_t>(rows * columns));
    for (Index r = 0; r < rows; ++r)
      quant::row_decoder (*format)(raw.data() + r * row, 0, columns, values.data() + r * columns);
    check.compare("value", values, expected);
    if (const auto* source = file.find("source")) {
      const auto given = graft::io::to_f32(*source);
      std::vector<std::byte> encoded(raw.size());
      quant::encode(*format, given.data(), static_cast<Index>(given.size()), encoded.data());
      check.require(encoded == raw, "encoding gives other bytes");
    }
    return check.result();
  }
  auto absmax = graft::io::to_f32(file.at("absmax"));
  if (file.find("absmax_codes") !=
      nullptr) {  // double quantisation: the scales are codes themselves
    const auto codes = graft::io::to_i64(file.at("absmax_codes"));
    const auto table = graft::io::to_f32(file.at("absmax_table")),
               scales = graft::io::to_f32(file.at("absmax_scale"));
    const auto offset = graft::io::to_f32(file.at("absmax_offset"));
    for (std::size_t i = 0; i < absmax.size(); ++i)
      absmax[i] = table.at(static_cast<std::size_t>(codes[i])) * scales.at(i / 256) + offset.at(0);
  }
  const auto code = graft::io::to_f32(file.at("code"));
  const auto block = c.json.at("block").get<Index>();
  std::vector<float> values;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto byte = std::to_integer<unsigned>(raw.at(i / 2));
    values.push_back(code.at(i % 2 == 0 ? byte >> 4 : byte & 15U) *
                     absmax.at(i / static_cast<std::size_t>(block)));
  }
  check.compare("value", values, expected);
  return check.result();
}

Result run_tokenizer_case(const Case& c) {
  Checker check(0);
  const auto path = find_model(c.json.at("model"));
  if (path.empty())
    throw Unsupported{concat("skipped: the file ", c.json.at("model").value("file", ""),
                             " is not in the model cache")};
  auto source = path;
  if (path.extension() == ".safetensors") source = path.parent_path();
  const auto tokenizer = graft::text::load_tokenizer(source);
  graft::text::EncodeOptions options;
  options.add_special = c.json.value("add_special_tokens", false);
  std::size_t wrong = 0;
  std::string first;
  for (const auto& s : c.json.at("strings")) {
    const auto text = s.at("text").get<std::string>();
    const auto ids = tokenizer.encode(text, options);
    if (ids != s.at("ids").get<std::vector<std::int32_t>>()) {
      if (wrong++ == 0) first = "ids of '" + text + "'";
      continue;
    }
    if (s.contains("decoded") && tokenizer.decode(ids) != s.at("decoded").get<std::string>() &&
        wrong++ == 0)
      first = "decoding '" + text + "'";
  }
  if (wrong > 0)
    check.fail("strings", concat(wrong, " strings differ, first: ", first));
  else
    check.add("strings", 0, 0, 0);
  return check.result();
}

}  // namespace conformance
