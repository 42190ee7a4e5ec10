#pragma once

#include <filesystem>

#include "graft/config.hpp"
#include "graft/text/tokenizer.hpp"

namespace graft::inline v0_1::text {

/// Loads a tokenizer from a GGUF file, a `tokenizer.json`, a SentencePiece `.model`, a `vocab.txt`,
/// or the first of the last three that a model folder holds. Roles of tokens and the chat template
/// come from `tokenizer_config.json`, `special_tokens_map.json` and `chat_template.jinja` beside
/// it. Errors: IoError that names the file, and what was looked for if there is nothing to load.
GRAFT_IO Tokenizer load_tokenizer(const std::filesystem::path& path);

}  // namespace graft::inline v0_1::text

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/text/impl/load_tokenizer_impl.hpp"
#endif
