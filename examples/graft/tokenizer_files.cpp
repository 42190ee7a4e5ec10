#include "files.hpp"
#include "graft/io/atomic_file.hpp"
#include "graft/io/json.hpp"
#include "graft/text/gguf_tokenizer.hpp"

namespace cli {
namespace {

using graft::io::Json;
namespace p = graft::text::pre_tokenizers;

Json byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

/// A splitting step as tokenizer.json has it; null for one without such a form.
Json step_json(const graft::text::PreTokenizerStep& step) {
  if (const auto* s = std::get_if<p::ByteLevel>(&step))
    return byte_level(s->add_prefix_space, s->use_regex);
  if (const auto* s = std::get_if<p::Digits>(&step))
    return {{"type", "Digits"}, {"individual_digits", s->individual_digits}};
  if (const auto* s = std::get_if<p::Split>(&step)) {
    const auto* regex = std::get_if<graft::text::Regex>(&s->pattern);
    if (regex != nullptr && s->behavior == graft::text::SplitBehavior::isolated)
      return {{"type", "Split"},
              {"pattern", {{"Regex", regex->pattern()}}},
              {"behavior", "Isolated"},
              {"invert", s->invert}};
  }
  return nullptr;
}

/// Puts bos in front of texts.
Json bos_template(const graft::text::Tokenizer& tokenizer) {
  const std::string& bos = tokenizer.token(tokenizer.bos_id());
  const Json first{{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const auto text = [](const char* id, int type) {
    return Json{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  Json token{{"id", bos}};
  token["ids"] = Json::array({tokenizer.bos_id()});
  token["tokens"] = Json::array({bos});
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({first, text("A", 0)})},
          {"pair", Json::array({first, text("A", 0), text("B", 1)})},
          {"special_tokens", Json{{bos, token}}}};
}

Json model_json(const graft::io::GgufMetadata& metadata, bool ignore_merges) {
  Json vocabulary = Json::object(), merges = Json::array();
  const auto& tokens = metadata.get_strings("tokenizer.ggml.tokens");
  for (std::size_t i = 0; i < tokens.size(); ++i) vocabulary[tokens[i]] = i;
  for (const auto& merge : metadata.get_strings("tokenizer.ggml.merges")) {
    const std::size_t blank = merge.find(' ', 1);
    merges.push_back(Json::array({merge.substr(0, blank), merge.substr(blank + 1)}));
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", ignore_merges},
          {"vocab", std::move(vocabulary)},
          {"merges", std::move(merges)}};
}

}  // namespace

bool write_tokenizer(const graft::io::GgufMetadata& metadata, const std::string& source,
                     const std::filesystem::path& folder) {
  if (metadata.get_string("tokenizer.ggml.model", "") != "gpt2") return false;
  const auto tokenizer = graft::text::tokenizer_from_gguf(metadata, source);
  const auto& parts = tokenizer.parts();

  Json steps = Json::array();
  bool spelled = false;  // the last step must hand the bytes to the model in their printable form
  for (const auto& step : parts.pre_tokenizer.steps) {
    Json json = step_json(step);
    if (json.is_null()) return false;
    spelled = json["type"] == "ByteLevel";
    steps.push_back(std::move(json));
  }
  if (!spelled) steps.push_back(byte_level(false, false));

  Json added = Json::array();
  for (const auto& token : parts.added_tokens)
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", token.special}});
  const Json document{
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", std::move(added)},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}}},
      {"post_processor", tokenizer.adds_bos() ? bos_template(tokenizer) : byte_level(false, true)},
      {"decoder", byte_level(true, true)},
      {"model", model_json(metadata,
                           std::get<graft::text::BpeModel>(*parts.model).options().ignore_merges)}};
  graft::io::write_file_atomically(folder / "tokenizer.json",
                                   graft::io::json_text(document, 1) + "\n");

  Json config{{"tokenizer_class", "PreTrainedTokenizerFast"},
              {"clean_up_tokenization_spaces", false}};
  const auto& special = tokenizer.special();
  const std::pair<const char*, std::int32_t> roles[] = {{"bos_token", special.bos},
                                                        {"eos_token", special.eos},
                                                        {"pad_token", special.pad},
                                                        {"unk_token", special.unk}};
  for (const auto& [key, id] : roles)
    if (id != graft::text::kNoToken) config[key] = tokenizer.token(id);
  if (!tokenizer.chat_template().empty()) config["chat_template"] = tokenizer.chat_template();
  graft::io::write_file_atomically(folder / "tokenizer_config.json",
                                   graft::io::json_text(config, 1) + "\n");
  return true;
}

}  // namespace cli
