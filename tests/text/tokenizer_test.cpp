#include "graft/text/tokenizer.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "graft/text/load_tokenizer.hpp"

namespace {

namespace fs = std::filesystem;
using namespace graft::text;
using Ids = std::vector<std::int32_t>;

Tokenizer load(const std::string& name) {
  return load_tokenizer(fs::path(GRAFT_SOURCE_DIR) / "tests" / "cases" / "tokenizer" / name /
                        "tokenizer.json");
}

std::string tokens_in(const Tokenizer& tokenizer, const MarkedEncoding& encoding) {
  Ids ids;
  for (std::size_t i = 0; i < encoding.ids.size(); ++i)
    if (encoding.marked[i] != 0) ids.push_back(encoding.ids[i]);
  return tokenizer.decode(ids);
}

}  // namespace

TEST_CASE("Special tokens in the text are parsed only if asked") {
  const Tokenizer tokenizer = load("qwen2");
  const std::int32_t end = tokenizer.id_of("<|im_end|>");
  REQUIRE(end != kNoToken);
  CHECK(tokenizer.encode("<|im_end|>") == Ids{end});
  const Ids letters = tokenizer.encode("<|im_end|>", {.parse_special = false});
  CHECK(letters.size() > 3);
  CHECK(std::find(letters.begin(), letters.end(), end) == letters.end());
  CHECK(tokenizer.decode(letters) == "<|im_end|>");
  CHECK(tokenizer.decode(Ids{end}, true).empty());
  // Other added tokens are not special: they are found either way.
  CHECK(tokenizer.encode("<tag>", {.parse_special = false}).size() == 1);
}

TEST_CASE("Limits of the length keep the special tokens") {
  const Tokenizer tokenizer = load("bert");
  const std::string text = "the boats leave the harbour in the morning";
  const Ids whole = tokenizer.encode(text);
  REQUIRE(whole.size() > 6);
  const Ids cut = tokenizer.encode(text, {.max_length = 5});
  CHECK(cut == Ids{whole[0], whole[1], whole[2], whole[3], whole.back()});
  CHECK(tokenizer.encode(text, {.add_special = false, .max_length = 2}) == Ids{whole[1], whole[2]});
  CHECK(tokenizer.encode(text, {.max_length = 2}) == Ids{whole[0], whole.back()});
  CHECK_THROWS_AS(tokenizer.encode(text, {.max_length = 1}), graft::ValueError);
  CHECK(tokenizer.added_length() == 2);
}

TEST_CASE("Bytes that are not UTF-8 count as the replacement character") {
  for (const char* name : {"gpt2", "bert", "gemma3", "t5"}) {
    const Tokenizer tokenizer = load(name);
    CHECK(tokenizer.encode("a\xFF z\xE2\x82") == tokenizer.encode("a\uFFFD z\uFFFD"));
  }
}

TEST_CASE("Ids that stand for nothing decode to nothing, negative ones are errors") {
  const Tokenizer tokenizer = load("gpt2");
  const auto beyond = static_cast<std::int32_t>(tokenizer.vocab_size());
  CHECK(tokenizer.decode(Ids{beyond, beyond + 100}).empty());
  CHECK_THROWS_AS(tokenizer.decode(Ids{-100}), graft::ValueError);
  CHECK_THROWS_AS(tokenizer.token(beyond), graft::ValueError);
  CHECK(tokenizer.id_of("no such token") == kNoToken);
}

TEST_CASE("Marked tokens are those that hold text of the ranges") {
  for (const char* name : {"gpt2", "qwen2", "gemma3", "llama2", "llama3", "bert_cased"}) {
    CAPTURE(name);
    const Tokenizer tokenizer = load(name);
    const std::string before = "the question: 12 boats", answer = " there are 30 nets",
                      after = "\nthe next";
    const auto begin = static_cast<graft::Index>(before.size());
    const TextRange range{begin, begin + static_cast<graft::Index>(answer.size())};
    const auto encoding = tokenizer.encode_marked(before + answer + after, std::span(&range, 1));
    CHECK(encoding.ids == tokenizer.encode(before + answer + after, {.add_special = false}));
    const std::string marked = tokens_in(tokenizer, encoding);
    const auto bare = [](std::string text) {
      std::erase_if(text, [](char c) { return c == ' ' || c == '\n'; });
      return text;
    };
    CHECK(bare(marked) == bare(answer));
  }
}

TEST_CASE("Marks follow the text where the normaliser changes it") {
  const Tokenizer tokenizer = load("qwen2");  // NFC: two bytes fewer for each e + accent
  const std::string before = "cafe\u0301 cafe\u0301 ", answer = "morning";
  const auto begin = static_cast<graft::Index>(before.size());
  const TextRange range{begin, begin + 7};
  const auto encoding = tokenizer.encode_marked(before + answer + " end", std::span(&range, 1));
  const std::string marked = tokens_in(tokenizer, encoding);
  CHECK("morning" == marked.substr(marked.find_first_not_of(' ')));
  const std::string broken = "\xFF\xFF " + answer;  // each byte becomes three
  const TextRange later{3, 10};
  CHECK(tokens_in(tokenizer, tokenizer.encode_marked(broken, std::span(&later, 1)))
            .ends_with("morning"));
}

TEST_CASE("Added tokens are marked by where they stand") {
  const Tokenizer tokenizer = load("qwen2");
  const std::string text = "a<|im_end|>b<|im_end|>";
  const TextRange range{1, 12};
  const auto encoding = tokenizer.encode_marked(text, std::span(&range, 1));
  CHECK(encoding.marked == std::vector<std::uint8_t>{0, 1, 1, 0});
}

TEST_CASE("A stream shows a character when its last byte has come") {
  const Tokenizer tokenizer = load("gpt2");
  StreamDecoder stream(tokenizer);
  std::vector<std::string> parts;
  const Ids ids = tokenizer.encode("x\U00020000y");
  REQUIRE(ids.size() == 6);
  for (const std::int32_t id : ids) parts.push_back(stream.push(id));
  CHECK(parts == std::vector<std::string>{"x", "", "", "", "\U00020000", "y"});
  CHECK(stream.finish().empty());
  stream.push(ids[1]);
  CHECK(stream.finish() == "\uFFFD");
  CHECK(stream.push(ids[0]) == "x");
}

TEST_CASE("A stream keeps the blanks between words of every decoder") {
  for (const char* name : {"t5", "llama2", "gemma3", "bert", "splits"}) {
    CAPTURE(name);
    const Tokenizer tokenizer = load(name);
    const Ids ids = tokenizer.encode("the boats  leave. the harbour", {.add_special = false});
    StreamDecoder stream(tokenizer);
    std::string text;
    for (const std::int32_t id : ids) text += stream.push(id);
    text += stream.finish();
    if (std::string(name) != "splits") CHECK(text == tokenizer.decode(ids, true));
    CHECK(text.find(' ') != std::string::npos);
  }
}

TEST_CASE("Several threads may share a tokenizer") {
  const Tokenizer tokenizer = load("gpt2");
  const std::string text = "The nets are mended in the evening, when the wind has gone. ";
  std::vector<Ids> expected, found(4);
  for (int t = 0; t < 4; ++t) expected.push_back(tokenizer.encode(text + std::to_string(t)));
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) found[t] = tokenizer.encode(text + std::to_string(t));
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(found == expected);
}

TEST_CASE("More words than the cache holds are tokenised all the same") {
  const Tokenizer tokenizer = load("gpt2");
  std::string text;
  for (int i = 0; i < 90'000; ++i) text += " w" + std::to_string(i * 7);
  const Ids ids = tokenizer.encode(text);
  CHECK(tokenizer.decode(ids) == text);
  CHECK(tokenizer.encode(text) == ids);
}

TEST_CASE("Generation ends with every control token that ends a text or a turn") {
  const Tokenizer tokenizer = load("qwen2");
  CHECK(tokenizer.end_ids() ==
        Ids{tokenizer.id_of("<|im_end|>"), tokenizer.id_of("<|endoftext|>")});
  CHECK(load("gemma3").end_ids() == Ids{load("gemma3").id_of("<end_of_turn>"), 1});
}

TEST_CASE("Padding falls back to the end of text") {
  TokenizerParts parts;
  parts.vocabulary.add("a", 0);
  parts.vocabulary.add("</s>", 1);
  parts.model.emplace(BpeModel(parts.vocabulary, {}, {}));
  parts.special.eos = 1;
  const Tokenizer tokenizer(std::move(parts));
  CHECK(tokenizer.pad_id() == 1);
  CHECK_FALSE(tokenizer.adds_eos());
  CHECK_THROWS_AS(Tokenizer(TokenizerParts{}), graft::ValueError);
}

TEST_CASE("The frame of a template is what comes before and after the tokens of one text") {
  const auto [before, after] = load("bert").frame();
  CHECK(before == Ids{2});
  CHECK(after == Ids{3});
  CHECK(load("roberta").frame().second == Ids{2});
  CHECK(load("gpt2").frame().first.empty());
}

TEST_CASE("The mask token is known by its usual names where files name no roles") {
  CHECK(load("bert").mask_id() == 4);
  CHECK(load("roberta").mask_id() == 400);
  CHECK(load("gpt2").mask_id() == kNoToken);
}
