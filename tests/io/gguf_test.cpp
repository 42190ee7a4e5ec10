#include "graft/io/gguf.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "temporary_folder.hpp"

namespace {

using graft::Index;
using graft::IoError;
using graft::io::GgufFile;
using graft::io::GgufMetadata;
using graft::io::GgufTensorToWrite;
using graft::quant::Format;
using graft_test::Bytes;
using graft_test::TemporaryFolder;

GgufFile parse(const std::vector<std::byte>& bytes) { return GgufFile::parse(bytes, "test.gguf"); }

/// "GGUF", version, number of tensors, number of keys.
Bytes header(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
  return Bytes().text("GGUF").number(version).number(tensors).number(keys);
}

Bytes& tensor(Bytes& bytes, std::string_view name, const std::vector<std::uint64_t>& dims,
              std::uint32_t type, std::uint64_t offset) {
  bytes.string(name).number(static_cast<std::uint32_t>(dims.size()));
  for (const std::uint64_t length : dims) bytes.number(length);
  return bytes.number(type).number(offset);
}

/// A file with the given tensors of 3 × 32 Q8_0 values (102 bytes) or the dims and types given.
struct Entry {
  std::string name = "w";
  std::vector<std::uint64_t> dims = {32, 3};
  std::uint32_t type = 8;
  std::uint64_t offset = 0;
};
std::vector<std::byte> file_of(const std::vector<Entry>& entries, std::size_t data_bytes) {
  Bytes bytes = header(entries.size(), 0);
  for (const Entry& entry : entries)
    tensor(bytes, entry.name, entry.dims, entry.type, entry.offset);
  return bytes.pad(32).zeros(data_bytes).get();
}

GgufMetadata all_kinds() {
  GgufMetadata metadata;
  metadata.set("u8", std::uint8_t{200});
  metadata.set("i8", std::int8_t{-100});
  metadata.set("u16", std::uint16_t{60000});
  metadata.set("i16", std::int16_t{-30000});
  metadata.set("u32", std::uint32_t{4000000000U});
  metadata.set("i32", std::int32_t{-2000000000});
  metadata.set("f32", 1.5F);
  metadata.set("bool", true);
  metadata.set("string", std::string("text \xC3\xA4\n"));
  metadata.set("u64", std::uint64_t{18000000000000000000ULL});
  metadata.set("i64", std::int64_t{-9000000000000000000LL});
  metadata.set("f64", 0.1);
  metadata.set("u8s", std::vector<std::uint8_t>{1, 2});
  metadata.set("i8s", std::vector<std::int8_t>{-1, 2});
  metadata.set("u16s", std::vector<std::uint16_t>{1, 2});
  metadata.set("i16s", std::vector<std::int16_t>{-1, 2});
  metadata.set("u32s", std::vector<std::uint32_t>{1, 2});
  metadata.set("i32s", std::vector<std::int32_t>{-1, 2});
  metadata.set("f32s", std::vector<float>{0.5F, -2.0F});
  metadata.set("bools", std::vector<bool>{true, false, true});
  metadata.set("strings", std::vector<std::string>{"a", "", "bc"});
  metadata.set("u64s", std::vector<std::uint64_t>{1, 2});
  metadata.set("i64s", std::vector<std::int64_t>{-1, 2});
  metadata.set("f64s", std::vector<double>{0.25, 4.0});
  metadata.set("empty", std::vector<std::string>{});
  return metadata;
}

}  // namespace

TEST_CASE("metadata of every kind and tensors of every format survive writing and reading") {
  TemporaryFolder folder;
  std::mt19937 random(2);
  std::vector<std::vector<std::byte>> contents;
  std::vector<GgufTensorToWrite> tensors;
  for (int i = 0; i <= static_cast<int>(Format::tq2_0); ++i) {
    const auto& info = graft::quant::format_info(static_cast<Format>(i));
    for (const auto& shape :
         std::vector<std::vector<Index>>{{256}, {3, 512}, {2, 3, 256}, {0, 256}}) {
      Index elements = 1;
      for (const Index length : shape) elements *= length;
      contents.emplace_back(
          static_cast<std::size_t>(elements / info.block_elements * info.block_bytes));
      for (std::byte& byte : contents.back()) byte = static_cast<std::byte>(random());
      tensors.push_back(
          {graft::concat(info.name, ".", shape.size(), ".", elements), shape, info.ggml_type, {}});
    }
  }
  contents.emplace_back(5 * sizeof(double));
  tensors.push_back({"f64", {5}, 28, {}});
  contents.emplace_back(sizeof(float));
  tensors.push_back({"scalar", {}, 0, {}});
  for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].data = contents[i];

  for (const std::uint32_t alignment : {0U, 8U, 64U}) {
    GgufMetadata metadata = all_kinds();
    if (alignment != 0) metadata.set("general.alignment", alignment);
    graft::io::write_gguf(folder / "a.gguf", metadata, tensors);
    const GgufFile file = GgufFile::open(folder / "a.gguf");
    if (alignment == 8) file.release();  // of memory, not of contents
    CHECK(file.version() == 3);
    CHECK(file.metadata().entries() == metadata.entries());
    REQUIRE(file.tensors().size() == tensors.size());
    std::vector<GgufTensorToWrite> again;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const auto& found = file.tensors()[i];
      CHECK(found.name == tensors[i].name);
      CHECK(found.shape == tensors[i].shape);
      CHECK(found.ggml_type == tensors[i].ggml_type);
      REQUIRE(found.data.size() == contents[i].size());
      if (!contents[i].empty())
        CHECK(std::memcmp(found.data.data(), contents[i].data(), contents[i].size()) == 0);
      CHECK(&file.at(found.name) == &found);
      again.push_back({found.name, found.shape, found.ggml_type, found.data});
    }
    graft::io::write_gguf(folder / "b.gguf", file.metadata(), again);
    CHECK(graft::io::read_file(folder / "a.gguf") == graft::io::read_file(folder / "b.gguf"));
  }
}

TEST_CASE("dimensions are turned into row-major order and blocks decode") {
  const auto bytes = file_of({{"w", {32, 3}, 8, 0}}, 102);
  const GgufFile file = parse(bytes);
  const auto& w = file.at("w");
  CHECK(w.shape == std::vector<Index>{3, 32});
  CHECK(w.rows() == 3);
  CHECK(w.columns() == 32);
  CHECK(w.format() == Format::q8_0);
  CHECK(w.type_name() == "Q8_0");
  CHECK(graft::io::to_f32(w) == std::vector<float>(96, 0.0F));
  CHECK(file.find("v") == nullptr);
  CHECK_THROWS_WITH(file.at("v"), Catch::Contains("test.gguf") && Catch::Contains("'v'"));
}

TEST_CASE("typed getters convert without loss and name what is wrong") {
  const GgufMetadata m = all_kinds();
  CHECK(m.get_u64("u8") == 200);
  CHECK(m.get_u64("u64") == 18000000000000000000ULL);
  CHECK(m.get_i64("i8") == -100);
  CHECK(m.get_i64("u32") == 4000000000LL);
  CHECK(m.get_f32("f64") == 0.1F);
  CHECK(m.get_f32("u16") == 60000.0F);
  CHECK(m.get_f64("f32") == 1.5);
  CHECK(m.get_bool("bool"));
  CHECK(m.get_string("string") == "text \xC3\xA4\n");
  CHECK(m.get_strings("strings") == std::vector<std::string>{"a", "", "bc"});
  CHECK(m.get_floats("f32s") == std::vector<float>{0.5F, -2.0F});
  CHECK(m.get_floats("i8s") == std::vector<float>{-1.0F, 2.0F});
  CHECK(m.get_ints("i32s") == std::vector<std::int64_t>{-1, 2});
  CHECK(m.get_ints("u64s") == std::vector<std::int64_t>{1, 2});

  CHECK(m.get_u64("none", 7) == 7);
  CHECK(m.get_i64("none", -7) == -7);
  CHECK(m.get_f32("none", 0.5F) == 0.5F);
  CHECK(m.get_f64("none", 0.5) == 0.5);
  CHECK(m.get_bool("none", true));
  CHECK(m.get_string("none", "x") == "x");
  CHECK(m.get_strings("none", {"x"}) == std::vector<std::string>{"x"});
  CHECK(m.get_floats("none", {1.0F}) == std::vector<float>{1.0F});
  CHECK(m.get_ints("none", {1}) == std::vector<std::int64_t>{1});

  CHECK_THROWS_WITH(m.get_u64("none"), Catch::Contains("'none' is missing"));
  CHECK_THROWS_WITH(m.get_u64("i8"), Catch::Contains("'i8'") && Catch::Contains("-100"));
  CHECK_THROWS_WITH(m.get_i64("u64"), Catch::Contains("'u64'") && Catch::Contains("out of range"));
  CHECK_THROWS_AS(m.get_u64("f32"), IoError);
  CHECK_THROWS_AS(m.get_u64("bool"), IoError);
  CHECK_THROWS_AS(m.get_u64("string", 3), IoError);
  CHECK_THROWS_AS(m.get_f32("string"), IoError);
  CHECK_THROWS_AS(m.get_bool("u8"), IoError);
  CHECK_THROWS_AS(m.get_string("u8"), IoError);
  CHECK_THROWS_AS(m.get_strings("string"), IoError);
  CHECK_THROWS_AS(m.get_floats("strings"), IoError);
  CHECK_THROWS_AS(m.get_floats("f32"), IoError);
  CHECK_THROWS_AS(m.get_ints("f32s"), IoError);
  CHECK_THROWS_AS(m.get_ints("bools"), IoError);

  GgufMetadata changed = m;
  changed.set("u8", std::string("now a text"));
  changed.erase("bool");
  CHECK(changed.get_string("u8") == "now a text");
  CHECK_FALSE(changed.has("bool"));
  CHECK(changed.entries().size() == m.entries().size() - 1);
}

TEST_CASE("a tensor of an unknown type is kept and named when it is used") {
  const GgufFile file = parse(file_of(
      {{"known", {32, 3}, 8, 0}, {"odd", {256, 2}, 16, 128}, {"new", {5}, 4711, 192}}, 224));
  CHECK(file.at("odd").data.size() == 64);
  CHECK(file.at("new").data.size() == 32);
  CHECK_THROWS_AS(file.at("odd").format(), IoError);
  CHECK_THROWS_WITH(file.at("odd").format(), Catch::Contains("test.gguf") &&
                                                 Catch::Contains("'odd'") &&
                                                 Catch::Contains("IQ2_XXS"));
  CHECK_THROWS_WITH(graft::io::to_f32(file.at("new")),
                    Catch::Contains("'new'") && Catch::Contains("4711"));
}

TEST_CASE("malformed GGUF files are refused with their name") {
  REQUIRE(parse(file_of({{}}, 102)).tensors().size() == 1);
  REQUIRE(parse(header(0, 0).get()).tensors().empty());
  REQUIRE(parse(header(0, 0, 2).get()).version() == 2);
  const std::uint64_t huge = std::uint64_t{1} << 60;
  const auto key = [](std::string_view name, std::uint32_t type) {
    return header(0, 1).string(name).number(type);
  };

  struct Malformed {
    std::string reason;
    std::vector<std::byte> bytes;
    std::string expected;
  };
  const std::vector<Malformed> variants = {
      {"empty", {}, "not a GGUF file"},
      {"other magic", Bytes().text("GGML").zeros(40).get(), "not a GGUF file"},
      {"version 1", header(0, 0, 1).get(), "version 1"},
      {"version 4", header(0, 0, 4).get(), "version 4"},
      {"big-endian", header(0, 0, 0x03000000U).get(), "big-endian"},
      {"no counts", Bytes().text("GGUF").number(std::uint32_t{3}).get(), "the file ends"},
      {"2^60 tensors", header(huge, 0).zeros(100).get(), "tensors"},
      {"2^60 keys", header(0, huge).zeros(100).get(), "metadata keys"},
      {"key beyond the end", header(0, 1).number(huge).zeros(13).get(),
       "name of 1152921504606846976 bytes"},
      {"key is not UTF-8", key("\xC0\x80", 4).zeros(4).get(), "not UTF-8"},
      {"key twice",
       header(0, 2)
           .string("k")
           .number(std::uint32_t{0})
           .zeros(1)
           .string("k")
           .number(std::uint32_t{0})
           .zeros(30)
           .get(),
       "'k': appears twice"},
      {"value type", key("k", 13).zeros(8).get(), "'k': unknown value type 13"},
      {"bool of 2", key("k", 7).number(std::uint8_t{2}).get(), "'k': expected true or false"},
      {"string beyond the end", key("k", 8).number(huge).zeros(8).get(), "the file ends"},
      {"array element type", key("k", 9).number(std::uint32_t{99}).number(std::uint64_t{0}).get(),
       "'k': unknown element type"},
      {"array of arrays",
       key("k", 9).number(std::uint32_t{9}).number(std::uint64_t{1}).zeros(40).get(),
       "'k': arrays of arrays"},
      {"2^60 numbers", key("k", 9).number(std::uint32_t{4}).number(huge).zeros(40).get(),
       "'k': the file cannot hold"},
      {"2^60 strings", key("k", 9).number(std::uint32_t{8}).number(huge).zeros(40).get(),
       "'k': the file cannot hold"},
      {"2^62 wide numbers", key("k", 9).number(std::uint32_t{10}).number(huge * 4).zeros(40).get(),
       "'k': the file cannot hold"},
      {"alignment 0", key("general.alignment", 4).number(std::uint32_t{0}).get(),
       "'general.alignment'"},
      {"alignment 24", key("general.alignment", 4).number(std::uint32_t{24}).get(),
       "'general.alignment'"},
      {"alignment 4", key("general.alignment", 4).number(std::uint32_t{4}).get(),
       "'general.alignment'"},
      {"alignment text", key("general.alignment", 8).string("32").get(), "'general.alignment'"},
      {"name is not UTF-8", file_of({{"\xFF"}}, 102), "tensor 0 is not UTF-8"},
      {"name twice", file_of({{"w", {32}, 8, 0}, {"w", {32}, 8, 64}}, 102),
       "'w': the name appears twice"},
      {"5 axes", file_of({{"w", {32, 1, 1, 1, 1}, 8, 0}}, 102), "'w': 5 axes"},
      {"2^60 axes", header(1, 0).string("w").number(0xFFFFFFFFU).zeros(100).get(),
       "'w': 4294967295 axes"},
      {"length above 2^63", file_of({{"w", {~0ULL}, 8, 0}}, 102), "'w': the shape is too large"},
      {"overflowing shape", file_of({{"w", {1ULL << 32, 1ULL << 32}, 8, 0}}, 102),
       "'w': the shape is too large"},
      {"overflow behind a zero", file_of({{"w", {0, 1ULL << 40, 1ULL << 40}, 8, 0}}, 102),
       "'w': the shape is too large"},
      {"overflowing bytes", file_of({{"w", {1ULL << 62}, 0, 0}}, 102),
       "'w': the shape is too large"},
      {"part of a block", file_of({{"w", {33, 3}, 8, 0}}, 200), "'w': rows of 33 values"},
      {"offset not aligned", file_of({{"w", {32, 3}, 8, 1}}, 200), "'w': offset 1"},
      {"offset beyond the end", file_of({{"w", {32, 3}, 8, 256}}, 102), "'w': offset 256"},
      {"huge offset", file_of({{"w", {32, 3}, 8, ~0ULL - 31}}, 102), "'w': offset"},
      {"cut off", file_of({{"w", {32, 3}, 8, 0}}, 101), "'w': expected 102 bytes"},
      {"overlap", file_of({{"a", {32, 3}, 8, 0}, {"b", {32, 3}, 8, 64}}, 200), "'a': overlaps 'b'"},
      {"same place", file_of({{"a", {32}, 8, 0}, {"b", {32}, 8, 0}}, 200), "'a': overlaps 'b'"},
  };
  for (const auto& [reason, bytes, expected] : variants) {
    CAPTURE(reason);
    CHECK_THROWS_AS(parse(bytes), IoError);
    CHECK_THROWS_WITH(parse(bytes), Catch::StartsWith("test.gguf") && Catch::Contains(expected));
  }
}

TEST_CASE("every truncation of a GGUF file is refused") {
  TemporaryFolder folder;
  const std::vector<float> values(8);
  graft::io::write_gguf(folder / "a.gguf", all_kinds(),
                        {{"w", {2, 4}, 0, std::as_bytes(std::span(values))}});
  const std::string whole = graft::io::read_file(folder / "a.gguf");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CHECK_THROWS_AS(GgufFile::parse(std::as_bytes(std::span(whole.data(), size)), "cut.gguf"),
                    IoError);
  }
}

TEST_CASE("mistakes in what is to be written are refused before a file appears") {
  TemporaryFolder folder;
  const std::vector<float> values(96);
  const auto data = std::as_bytes(std::span(values));
  const auto write = [&](const std::vector<GgufTensorToWrite>& tensors,
                         const GgufMetadata& metadata = GgufMetadata()) {
    graft::io::write_gguf(folder / "x.gguf", metadata, tensors);
  };
  const GgufTensorToWrite good{"w", {3, 32}, 0, data};
  CHECK_THROWS_AS(write({good, good}), graft::ValueError);
  CHECK_THROWS_AS(write({{"w", {3, 31}, 0, data}}), graft::ValueError);
  CHECK_THROWS_AS(write({{"w", {3, 33}, 8, data}}), graft::ValueError);
  CHECK_THROWS_AS(write({{"w", {-3, -32}, 0, data}}), graft::ValueError);
  CHECK_THROWS_AS(write({{"w", {1, 1, 1, 3, 32}, 0, data}}), graft::ValueError);
  CHECK_THROWS_AS(write({{"\xFF", {3, 32}, 0, data}}), graft::ValueError);
  GgufMetadata metadata;
  metadata.set("general.alignment", std::uint32_t{24});
  CHECK_THROWS_AS(write({good}, metadata), graft::ValueError);
  CHECK(folder.entries() == 0);
}
