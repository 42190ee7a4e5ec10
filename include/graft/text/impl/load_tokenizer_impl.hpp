#pragma once

#include <optional>
#include <string_view>
#include <utility>

#include "graft/base/error.hpp"
#include "graft/io/gguf.hpp"
#include "graft/io/json.hpp"
#include "graft/io/mapped_file.hpp"
#include "graft/text/gguf_tokenizer.hpp"
#include "graft/text/load_tokenizer.hpp"
#include "graft/text/sentence_piece.hpp"
#include "graft/text/tokenizer_json.hpp"
#include "graft/text/vocab_txt.hpp"

namespace graft::inline v0_1::text {

namespace detail {

/// "bos_token" and its like: a text, or an object with the text under "content".
inline std::optional<std::string> token_setting(const io::JsonView& settings,
                                                std::string_view key) {
  const auto view = settings.find(key);
  if (!view) return std::nullopt;
  return view->is_object() ? view->at("content").string() : view->string();
}

/// Takes roles of tokens from `tokenizer_config.json` or `special_tokens_map.json`.
inline void apply_roles(const io::JsonView& settings, TokenizerParts& parts) {
  const std::pair<std::string_view, std::int32_t*> roles[] = {
      {"bos_token", &parts.special.bos},  {"eos_token", &parts.special.eos},
      {"pad_token", &parts.special.pad},  {"unk_token", &parts.special.unk},
      {"cls_token", &parts.special.cls},  {"sep_token", &parts.special.sep},
      {"mask_token", &parts.special.mask}};
  for (const auto& [key, role] : roles) {
    const auto token = token_setting(settings, key);
    if (!token) continue;
    const std::int32_t id = parts.vocabulary.find(*token);
    if (id != kNoToken) *role = id;
  }
}

/// The template in `tokenizer_config.json`: a text, or named texts of which "default" is taken.
inline std::string chat_template_setting(const io::JsonView& settings) {
  const auto view = settings.find("chat_template");
  if (!view) return {};
  if (view->is_string()) return view->string();
  for (const io::JsonView& entry : view->elements()) {
    if (entry.at("name").string() == "default") return entry.at("template").string();
  }
  return {};
}

inline void apply_settings(const std::filesystem::path& folder, TokenizerParts& parts) {
  const auto file = [&](std::string_view name) { return folder / std::filesystem::path(name); };
  for (const std::string_view name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    if (!std::filesystem::exists(file(name))) continue;
    const io::Json document = io::read_json(file(name), {.allow_duplicates = true});
    const io::JsonView settings(document, file(name).string());
    apply_roles(settings, parts);
    if (std::string chat = chat_template_setting(settings); !chat.empty())
      parts.chat_template = std::move(chat);
  }
  if (std::filesystem::exists(file("chat_template.jinja")))
    parts.chat_template = io::read_file(file("chat_template.jinja"));
}

/// Settings of `tokenizer_config.json` that matter where there is no `tokenizer.json`.
inline std::optional<io::Json> config_of(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer_config.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  return io::read_json(path, {.allow_duplicates = true});
}

inline TokenizerParts sentence_piece_parts(const std::filesystem::path& path) {
  SentencePieceOptions options;
  if (const auto config = config_of(path.parent_path())) {
    const io::JsonView settings(*config, (path.parent_path() / "tokenizer_config.json").string());
    const bool t5 = settings.string_or("tokenizer_class", "").starts_with("T5");
    options.add_bos = settings.boolean_or("add_bos_token", false);
    options.add_eos = settings.boolean_or("add_eos_token", t5);
  }
  return tokenizer_parts_from_sentence_piece(io::read_file(path), path.string(), options);
}

inline TokenizerParts vocab_txt_parts(const std::filesystem::path& path) {
  normalizers::Bert normalizer;
  if (const auto config = config_of(path.parent_path())) {
    const io::JsonView settings(*config, (path.parent_path() / "tokenizer_config.json").string());
    normalizer.lowercase = settings.boolean_or("do_lower_case", true);
    normalizer.handle_chinese_chars = settings.boolean_or("tokenize_chinese_chars", true);
    if (const auto strip = settings.find("strip_accents"))
      normalizer.strip_accents = strip->boolean();
  }
  return tokenizer_parts_from_vocab_txt(io::read_file(path), path.string(), normalizer);
}

}  // namespace detail

GRAFT_IO Tokenizer load_tokenizer(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  fs::path file = path;
  if (fs::is_directory(path)) {
    static constexpr std::string_view kNames[] = {"tokenizer.json", "tokenizer.model",
                                                  "spiece.model", "sentencepiece.bpe.model",
                                                  "vocab.txt"};
    bool found = false;
    for (const std::string_view name : kNames) {
      file = path / fs::path(name);
      found = fs::exists(file);
      if (found) break;
    }
    if (!found) {
      throw IoError(concat("'", path.string(),
                           "' holds no tokenizer: none of tokenizer.json, "
                           "tokenizer.model, spiece.model, sentencepiece.bpe.model, vocab.txt"));
    }
  }
  const std::string extension = file.extension().string();
  if (extension == ".gguf")
    return tokenizer_from_gguf(io::GgufFile::open(file).metadata(), file.string());
  TokenizerParts parts;
  if (extension == ".json") {
    parts = tokenizer_parts_from_json(io::read_file(file), file.string());
  } else if (extension == ".model") {
    parts = detail::sentence_piece_parts(file);
  } else if (extension == ".txt") {
    parts = detail::vocab_txt_parts(file);
  } else {
    throw IoError(concat("'", file.string(),
                         "' is no tokenizer: expected .gguf, .json, .model, .txt or a folder"));
  }
  detail::apply_settings(file.parent_path(), parts);
  return Tokenizer(std::move(parts));
}

}  // namespace graft::inline v0_1::text
