#pragma once

#include <string_view>

#include "graft/config.hpp"
#include "graft/text/tokenizer.hpp"

namespace graft::inline v0_1::text {

/// The parts that a `tokenizer.json` describes. Truncation and padding settings in the file are
/// left aside: they belong to a batch. The file does not name bos, eos and pad.
/// @param source  name of the file, for messages
/// Errors: IoError that names the file and the field.
GRAFT_IO TokenizerParts tokenizer_parts_from_json(std::string_view json, std::string_view source);

/// A tokenizer from a `tokenizer.json` alone; `load_tokenizer` also reads what lies beside it.
/// Errors: IoError that names the file and the field.
GRAFT_IO Tokenizer tokenizer_from_json(std::string_view json, std::string_view source);

}  // namespace graft::inline v0_1::text

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/text/impl/tokenizer_json_impl.hpp"
#endif
