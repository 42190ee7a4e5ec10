// Cases of block formats and tokenisers.
#include <cstring>

#include "graft/io/gguf.hpp"
#include "graft/quant/format.hpp"
#include "graft/quant/nf4.hpp"
#include "graft/text/chat_template.hpp"
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
  const auto file = tensors_of(c);
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

namespace {

/// Counts comparisons and keeps the first that failed.
struct Tally {
  std::size_t compared = 0, wrong = 0;
  std::string first;
  void check(bool ok, const std::string& what) {
    ++compared;
    if (!ok && wrong++ == 0) first = what;
  }
};

using Ids = std::vector<std::int32_t>;

void check_strings(Tally& tally, const graft::text::Tokenizer& tokenizer, const Json& cases) {
  graft::text::EncodeOptions options;
  options.add_special = cases.value("add_special_tokens", false);
  options.parse_special = cases.value("parse_special", true);
  const auto given = [](const Json& s, const char* key) {
    return s.contains(key) && !s[key].is_null();
  };
  for (const auto& s : cases.at("strings")) {
    auto text = s.at("text").get<std::string>();
    if (cases.value("strips_zeros", false)) std::erase(text, '\0');
    const auto ids = s.at("ids").get<Ids>();
    tally.check(tokenizer.encode(text, options) == ids, "ids of '" + text + "'");
    if (given(s, "decoded"))
      tally.check(tokenizer.decode(ids) == s.at("decoded").get<std::string>(),
                  "decoding '" + text + "'");
    if (given(s, "decoded_without_special"))
      tally.check(tokenizer.decode(ids, true) == s.at("decoded_without_special").get<std::string>(),
                  "decoding '" + text + "' without special tokens");
  }
  if (cases.contains("pairs"))
    for (const auto& pair : cases.at("pairs")) {
      const auto found = tokenizer.encode_pair(pair.at("first").get<std::string>(),
                                               pair.at("second").get<std::string>(), options);
      tally.check(found.ids == pair.at("input_ids").get<Ids>(), "pair " + pair.dump());
      tally.check(found.type_ids == pair.at("token_type_ids").get<Ids>(),
                  "types of pair " + pair.dump());
    }
}

void check_chats(Tally& tally, const graft::text::Tokenizer& tokenizer, const Json& chats) {
  const auto chat = graft::text::ChatTemplate::of(tokenizer);
  for (const auto& entry : chats) {
    std::vector<graft::text::ChatMessage> messages;
    for (const auto& message : entry.at("messages"))
      messages.push_back({message.at("role"), message.at("content")});
    graft::text::ChatOptions options;
    options.add_generation_prompt = entry.at("add_generation_prompt").get<bool>();
    tally.check(chat.render(messages, options).text == entry.at("rendered").get<std::string>(),
                "rendering " + entry.at("messages").dump());
    tally.check(chat.encode(tokenizer, messages, options).ids == entry.at("ids").get<Ids>(),
                "ids of " + entry.at("messages").dump());
  }
}

}  // namespace

/// Texts and their ids, for a published tokenizer named in the case or for the files beside it.
Result run_tokenizer_case(const Case& c) {
  Checker check(0);
  std::vector<std::filesystem::path> sources;
  if (c.json.contains("model")) {
    sources.push_back(find_model(c.json.at("model")));
    if (sources[0].empty())
      throw Unsupported{
          concat("skipped: ", model_name(c.json.at("model")), " is not in the model cache")};
  } else {
    for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.txt"})
      if (const auto path = c.folder.parent_path() / name; std::filesystem::exists(path))
        sources.push_back(path);
    if (sources.empty()) throw Unsupported{"no tokenizer beside the texts"};
  }
  Tally tally;
  for (const auto& source : sources) {
    const auto tokenizer = graft::text::load_tokenizer(source);
    check_strings(tally, tokenizer, c.json);
    if (c.json.contains("chats")) check_chats(tally, tokenizer, c.json.at("chats"));
  }
  if (tally.wrong > 0)
    check.fail("texts",
               concat(tally.wrong, " of ", tally.compared, " texts differ, first: ", tally.first));
  else
    check.add("texts", 0, 0, 0);
  check.note(concat(tally.compared, " comparisons"));
  return check.result();
}

}  // namespace conformance
