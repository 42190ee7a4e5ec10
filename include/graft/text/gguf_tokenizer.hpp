#pragma once

#include <string_view>

#include "graft/config.hpp"
#include "graft/io/gguf.hpp"
#include "graft/text/tokenizer.hpp"

namespace graft::inline v0_1::text {

/// The splitting steps that a GGUF file names by `tokenizer.ggml.pre`.
/// Errors: ValueError that lists the known names.
GRAFT_IO PreTokenizer gguf_pre_tokenizer(std::string_view name);

/// The tokenizer in a GGUF file's metadata: byte-level BPE ("gpt2"), SentencePiece BPE ("llama"),
/// Unigram ("t5") or WordPiece ("bert", uncased). Control tokens (type 3) are special, user-defined
/// ones (type 4) are always found in the text.
/// @param source  name of the file, for messages
/// Errors: IoError that names the file and the metadata key.
GRAFT_IO Tokenizer tokenizer_from_gguf(const io::GgufMetadata& metadata, std::string_view source);

}  // namespace graft::inline v0_1::text

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/text/impl/gguf_tokenizer_impl.hpp"
#endif
