// Any bytes as a tokenizer.json or a SentencePiece model: load it or refuse it, then encode a text
// with whatever came out, decode it whole and as a stream.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "graft/text/sentence_piece.hpp"
#include "graft/text/tokenizer_json.hpp"

namespace {

using graft::text::Tokenizer;

void use(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {true, false}) {
    const auto ids = tokenizer.encode(text, {.parse_special = parse_special});
    const std::string decoded = tokenizer.decode(ids, parse_special);
    if (!graft::text::is_valid_utf8(decoded)) __builtin_trap();
    graft::text::StreamDecoder stream(tokenizer, parse_special);
    std::string streamed;
    for (const std::int32_t id : ids) streamed += stream.push(id);
    streamed += stream.finish();
    if (!graft::text::is_valid_utf8(streamed)) __builtin_trap();
  }
  (void)tokenizer.encode_pair(text, "second", {.max_length = 12});
  const graft::text::TextRange range{1, 5};
  const auto marked = tokenizer.encode_marked(text, std::span(&range, 1));
  if (marked.ids.size() != marked.marked.size()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  static constexpr std::string_view kText =
      "Hello  world, it's 12345 na\xC3\xAFve \xE4\xBD\xA0\xE5\xA5\xBD "
      "<s>\xF0\x9F\x99\x82\n\n\tx\xFF";
  try {
    if (bytes.starts_with("{")) {
      use(graft::text::tokenizer_from_json(bytes, "tokenizer.json"), kText);
    } else {
      use(graft::text::tokenizer_from_sentence_piece(bytes, "tokenizer.model"), kText);
    }
  } catch (const graft::Error&) {
  }
  return 0;
}
