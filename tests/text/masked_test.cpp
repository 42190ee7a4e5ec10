#include "graft/text/masked.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "graft/io/atomic_file.hpp"
#include "graft/text/load_tokenizer.hpp"
#include "io/temporary_folder.hpp"
#include "text/case_files.hpp"

using Catch::Contains;
using graft::Index;
using graft::text::DocumentUnit;
using graft::text::Example;
using graft::text::kIgnoredLabel;
using graft::text::MaskedDataOptions;
using graft::text::Masking;

namespace {

using Ids = std::vector<std::int32_t>;
constexpr std::int32_t kUnknown = 1, kCls = 2, kSep = 3, kMask = 4;  // of BERT's tokenizer there

graft::text::Tokenizer bert() { return graft::text::load_tokenizer(kCases / "bert"); }

graft::text::LanguageData load(const std::string& name, const std::string& text,
                               const MaskedDataOptions& options = {}) {
  const graft_test::TemporaryFolder folder;
  graft::io::write_file_atomically(folder.path() / name, text);
  return graft::text::load_masked_data(folder.path() / name, bert(), options);
}

/// A row of `length` tokens from 10 on, between [CLS] and [SEP].
Example row(Index length) {
  Example example;
  for (Index i = 0; i < length; ++i) {
    example.ids.push_back(static_cast<std::int32_t>(10 + i % 300));
    example.labels.push_back(example.ids.back());
  }
  example.ids.front() = kCls;
  example.ids.back() = kSep;
  example.labels.front() = example.labels.back() = kIgnoredLabel;
  return example;
}

Example masked(Example example, std::uint64_t seed, const Masking& masking = {0.15, kMask, 400}) {
  graft::text::mask_tokens(example, masking, seed);
  return example;
}

}  // namespace

TEST_CASE("Packed texts fill rows between the tokens of the template") {
  const auto tokenizer = bert();
  const graft::text::EncodeOptions plain{.add_special = false};
  Ids stream = tokenizer.encode("the sun and the rain", plain);
  stream.push_back(kSep);
  for (const auto id : tokenizer.encode("a road", plain)) stream.push_back(id);
  const auto data = load("a.txt", "the sun and the rain\n\na road\n",
                         {.sequence_length = 7, .unit = DocumentUnit::line});
  CHECK(data.documents == 2);
  Ids joined;
  for (std::size_t i = 0; i < data.examples.size(); ++i) {
    const auto& ids = data.examples[i].ids;
    CHECK(ids.front() == kCls);
    CHECK(ids.back() == kSep);
    CHECK((i + 1 == data.examples.size() || ids.size() == 7));
    joined.insert(joined.end(), ids.begin() + 1, ids.end() - 1);
    for (std::size_t t = 0; t < ids.size(); ++t)
      CHECK(data.examples[i].labels[t] == (ids[t] > kMask ? ids[t] : kIgnoredLabel));
  }
  CHECK(joined == stream);
}

TEST_CASE("Without packing each text makes rows of its own, from lines or a column") {
  const MaskedDataOptions lines{.packing = false, .unit = DocumentUnit::line};
  const auto data = load("a.txt", "the sun\nthe rain and the road\n", lines);
  REQUIRE(data.examples.size() == 2);
  CHECK(data.examples[0].ids == bert().encode("the sun"));
  CHECK(data.examples[1].ids == bert().encode("the rain and the road"));
  auto columns = lines;
  columns.text_column = "said";
  const auto table = load("a.csv", "said,by\nthe sun,me\nthe rain and the road,you\n", columns);
  CHECK(table.examples == data.examples);
  auto narrow = lines;
  narrow.sequence_length = 4;
  for (const auto& example : load("a.txt", "the rain and the road\n", narrow).examples)
    CHECK(example.length() <= 4);
}

TEST_CASE("Texts with nothing to hide are refused by file and line") {
  const MaskedDataOptions lines{.packing = false, .unit = DocumentUnit::line};
  CHECK_THROWS_WITH(load("a.txt", "the sun\n \nthe rain\n", lines),
                    Contains("a.txt:2: the text is empty"));
  CHECK_THROWS_WITH(load("a.txt", "the sun\n[SEP] [MASK]\n", lines),
                    Contains("a.txt:2: the text has no token that can be masked"));
  CHECK_THROWS_WITH(load("a.csv", "text,n\nthe sun,1\n\"\",2\n", {}), Contains("a.csv:3"));
  CHECK_THROWS_WITH(load("a.txt", "\n\n", {}), Contains("no text"));
  CHECK_THROWS_WITH(load("a.txt", "the sun", {.sequence_length = 2}),
                    Contains("sequence length 2; expected at least 3"));
  CHECK(load("a.txt", "the sun\n\nthe rain\n", {.unit = DocumentUnit::line}).documents == 2);
}

TEST_CASE("Rates and tokenizers that cannot hide a token are refused") {
  using graft::text::masking_of;
  for (const double rate : {0.0, 1.0, -0.1, 1.5, std::nan("")})
    CHECK_THROWS_WITH(masking_of(bert(), 400, rate), Contains("mask rate"));
  CHECK_THROWS_WITH(masking_of(graft::text::load_tokenizer(kCases / "gpt2"), 400),
                    Contains("no mask token"));
  CHECK(masking_of(bert(), 400).mask_id == kMask);
  CHECK(masking_of(bert(), 400).vocabulary == 400);
  CHECK(masking_of(bert(), 100000).vocabulary == bert().vocab_size());
}

TEST_CASE("Of all tokens 15 % are chosen: 80 % of them are hidden, 10 % drawn, 10 % stay") {
  const Index tokens = 200002;
  const auto before = row(tokens), after = masked(before, 7);
  double chosen = 0, hidden = 0, same = 0;
  for (std::size_t i = 0; i < before.ids.size(); ++i) {
    if (after.labels[i] == kIgnoredLabel) {
      CHECK(after.ids[i] == before.ids[i]);
      continue;
    }
    REQUIRE(after.labels[i] == before.ids[i]);
    ++chosen;
    if (after.ids[i] == kMask)
      ++hidden;
    else if (after.ids[i] == before.ids[i])
      ++same;
    else
      CHECK((after.ids[i] >= 0 && after.ids[i] < 400));
  }
  // Five standard deviations and more.
  CHECK(chosen / 200000 == Approx(0.15).margin(0.005));
  CHECK(hidden / chosen == Approx(0.8).margin(0.012));
  CHECK(same / chosen == Approx(0.1).margin(0.01));
  CHECK((chosen - hidden - same) / chosen == Approx(0.1).margin(0.01));
  CHECK(after.ids.front() == kCls);
  CHECK(after.ids.back() == kSep);
}

TEST_CASE("The same seed hides the same tokens, another one others; each row has one at least") {
  const auto before = row(50);
  CHECK(masked(before, 3) == masked(before, 3));
  CHECK_FALSE(masked(before, 3) == masked(before, 4));
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const auto tiny = masked(row(4), seed, {0.01, kMask, 400});
    CHECK(std::count(tiny.labels.begin(), tiny.labels.end(), kIgnoredLabel) < 4);
    CHECK(tiny.labels.front() == kIgnoredLabel);
    CHECK(tiny.labels.back() == kIgnoredLabel);
  }
}

TEST_CASE("Control tokens inside of a text are never hidden") {
  const auto data = load("a.txt", "the [UNK] sun [MASK] and [SEP] rain");
  REQUIRE(data.examples.size() == 1);
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const auto after = masked(data.examples.front(), seed, {0.9, kMask, 400});
    for (std::size_t i = 0; i < after.ids.size(); ++i) {
      const auto id = data.examples.front().ids[i];
      if (id == kUnknown || id == kSep || id == kMask || id == kCls)
        CHECK((after.ids[i] == id && after.labels[i] == kIgnoredLabel));
    }
  }
}
