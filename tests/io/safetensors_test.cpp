#include "graft/io/safetensors.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "graft/io/mapped_file.hpp"
#include "temporary_folder.hpp"

namespace {

using graft::Index;
using graft::IoError;
using graft::io::DType;
using graft::io::SafetensorsFile;
using graft::io::SafetensorsModel;
using graft::io::TensorToWrite;
using graft_test::Bytes;
using graft_test::TemporaryFolder;
namespace fs = std::filesystem;

/// A file with this header and `data_bytes` bytes of data.
std::vector<std::byte> file_of(std::string_view header, std::size_t data_bytes) {
  return Bytes().number<std::uint64_t>(header.size()).text(header).zeros(data_bytes).get();
}

SafetensorsFile parse(const std::vector<std::byte>& bytes) {
  return SafetensorsFile::parse(bytes, "test.safetensors");
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

template <class T>
graft::io::TensorView view_of(DType dtype, const std::vector<T>& values) {
  return {"w", dtype, {std::ssize(values)}, bytes_of(values)};
}

}  // namespace

TEST_CASE("tensors of every dtype survive writing and reading") {
  TemporaryFolder folder;
  std::mt19937 random(1);
  std::vector<std::vector<std::byte>> contents;
  std::vector<TensorToWrite> tensors;
  contents.reserve(64);
  for (int i = 0; i <= static_cast<int>(DType::u64); ++i) {
    const auto dtype = static_cast<DType>(i);
    for (const auto& shape :
         std::vector<std::vector<Index>>{{}, {0}, {7}, {3, 5}, {2, 0, 3}, {1, 2, 3, 1}}) {
      Index count = graft::io::dtype_info(dtype).bytes;
      for (const Index length : shape) count *= length;
      contents.emplace_back(static_cast<std::size_t>(count));
      for (std::byte& byte : contents.back()) byte = static_cast<std::byte>(random());
      tensors.push_back({graft::concat("t\xC3\xA4.", tensors.size(), ".", i), dtype, shape, {}});
    }
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].data = contents[i];
  graft::io::write_safetensors(folder / "all.safetensors", tensors,
                               {{"format", "pt"}, {"note", "a \"b\"\n"}});
  CHECK(folder.entries() == 1);

  const SafetensorsFile file = SafetensorsFile::open(folder / "all.safetensors");
  REQUIRE(file.tensors().size() == tensors.size());
  CHECK(file.metadata().at("note") == "a \"b\"\n");
  for (const TensorToWrite& expected : tensors) {
    const auto& found = file.at(expected.name);
    CHECK(found.dtype == expected.dtype);
    CHECK(found.shape == expected.shape);
    REQUIRE(found.data.size() == expected.data.size());
    if (!found.data.empty()) {
      CHECK(std::memcmp(found.data.data(), expected.data.data(), found.data.size()) == 0);
      const auto width = static_cast<std::uintptr_t>(graft::io::dtype_info(found.dtype).bytes);
      CHECK(reinterpret_cast<std::uintptr_t>(found.data.data()) % width == 0);
    }
  }
  CHECK(file.find("absent") == nullptr);
  CHECK_THROWS_WITH(file.at("absent"),
                    Catch::Contains("all.safetensors") && Catch::Contains("'absent'"));
}

TEST_CASE("a file from the format's own writer is written back byte by byte") {
  const fs::path source =
      fs::path(GRAFT_SOURCE_DIR) / "tests" / "cases" / "quant" / "NF4" / "case.safetensors";
  TemporaryFolder folder;
  const SafetensorsFile file = SafetensorsFile::open(source);
  std::vector<TensorToWrite> tensors;
  for (const auto& tensor : file.tensors())
    tensors.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.data});
  graft::io::write_safetensors(folder / "copy.safetensors", tensors, file.metadata());
  CHECK(graft::io::read_file(folder / "copy.safetensors") == graft::io::read_file(source));
}

TEST_CASE("views outlive the file object when the storage is kept") {
  TemporaryFolder folder;
  const std::vector<float> values = {1.0F, -2.0F};
  graft::io::write_safetensors(folder / "a.safetensors",
                               {{"w", DType::f32, {2}, bytes_of(values)}});
  std::shared_ptr<const void> storage;
  graft::io::TensorView view;
  {
    const SafetensorsFile file = SafetensorsFile::open(folder / "a.safetensors");
    storage = file.storage();
    view = file.at("w");
  }
  CHECK(graft::io::to_f32(view) == values);
}

TEST_CASE("malformed safetensors files are refused with their name") {
  const std::string one = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  REQUIRE(parse(file_of(one, 8)).at("w").elements() == 2);
  REQUIRE(parse(file_of(one + "   ", 8)).tensors().size() == 1);
  REQUIRE(parse(file_of("{}", 0)).tensors().empty());

  const auto two = [](std::string_view a, std::string_view b) {
    return graft::concat(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)", a,
                         R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)", b, "}}");
  };
  REQUIRE(parse(file_of(two("[4,8]", "[0,4]"), 8)).tensors().size() == 2);
  const auto with = [](std::string_view entry) { return graft::concat(R"({"w":)", entry, "}"); };

  struct Malformed {
    std::string reason;
    std::vector<std::byte> bytes;
    std::string expected;
  };
  const std::vector<Malformed> variants = {
      {"empty", {}, "8 at least"},
      {"short", Bytes().zeros(7).get(), "8 at least"},
      {"header beyond the file", Bytes().number<std::uint64_t>(9).text("{}").get(),
       "header of 9 bytes"},
      {"huge header", Bytes().number<std::uint64_t>(~0ULL).text("{}").get(),
       "header of 18446744073709551615"},
      {"not an object", file_of("[]", 0), "not a JSON object"},
      {"leading blank", file_of(" {}", 0), "not a JSON object"},
      {"broken JSON", file_of(R"({"w":)", 0), "parse error"},
      {"bad UTF-8", file_of("{\"\xFF\":1}", 0), "UTF-8"},
      {"deep", file_of(R"({"w":[[[[[[[[[[[[]]]]]]]]]]]]})", 0), "nested deeper"},
      {"entry is no object", file_of(with("3"), 0), "field 'w'"},
      {"name twice",
       file_of(
           R"({"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
           0),
       "'w' appears twice"},
      {"no dtype", file_of(with(R"({"shape":[2],"data_offsets":[0,8]})"), 8), "'dtype' is missing"},
      {"unknown dtype", file_of(with(R"({"dtype":"F13","shape":[2],"data_offsets":[0,8]})"), 8),
       "unknown dtype 'F13'"},
      {"dtype is a number", file_of(with(R"({"dtype":7,"shape":[2],"data_offsets":[0,8]})"), 8),
       "field 'w.dtype'"},
      {"no shape", file_of(with(R"({"dtype":"F32","data_offsets":[0,8]})"), 8),
       "'shape' is missing"},
      {"negative length", file_of(with(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), 8),
       "field 'w.shape[0]'"},
      {"fraction", file_of(with(R"({"dtype":"F32","shape":[2.5],"data_offsets":[0,8]})"), 8),
       "field 'w.shape[0]'"},
      {"overflowing shape",
       file_of(
           with(
               R"({"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]})"),
           8),
       "'w': the shape is too large"},
      {"overflow to the right size",
       file_of(with(R"({"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]})"), 8),
       "too large"},
      {"overflow behind a zero",
       file_of(with(R"({"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]})"),
               0),
       "too large"},
      {"length above 64 bits",
       file_of(with(R"({"dtype":"F32","shape":[99999999999999999999999],"data_offsets":[0,8]})"),
               8),
       "field 'w.shape[0]'"},
      {"unsigned length",
       file_of(with(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})"), 8),
       "field 'w.shape[0]'"},
      {"no offsets", file_of(with(R"({"dtype":"F32","shape":[2]})"), 8),
       "'data_offsets' is missing"},
      {"one offset", file_of(with(R"({"dtype":"F32","shape":[2],"data_offsets":[8]})"), 8),
       "'w': expected 2 data_offsets"},
      {"reversed", file_of(with(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), 8),
       "'w': data_offsets"},
      {"beyond the data", file_of(with(R"({"dtype":"F32","shape":[2],"data_offsets":[8,16]})"), 8),
       "'w': data_offsets"},
      {"cut off", file_of(one, 7), "'w': data_offsets"},
      {"size against shape",
       file_of(with(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), 8),
       "'w': expected 12 bytes"},
      {"overlap", file_of(two("[0,4]", "[2,6]"), 6),
       "'b': data begins at 2, expected 4: it overlaps"},
      {"same range", file_of(two("[0,4]", "[0,4]"), 4), "overlaps"},
      {"hole", file_of(two("[0,4]", "[5,9]"), 9), "'b': data begins at 5, expected 4"},
      {"hole at the start", file_of(two("[1,5]", "[5,9]"), 9), "'a': data begins at 1"},
      {"rest at the end", file_of(one, 9), "end at byte 8 of 9"},
      {"metadata is no object", file_of(R"({"__metadata__":[]})", 0), "__metadata__"},
      {"metadata of numbers", file_of(R"({"__metadata__":{"a":1}})", 0), "__metadata__.a"},
  };
  for (const auto& [reason, bytes, expected] : variants) {
    CAPTURE(reason);
    CHECK_THROWS_AS(parse(bytes), IoError);
    CHECK_THROWS_WITH(parse(bytes),
                      Catch::StartsWith("test.safetensors") && Catch::Contains(expected));
  }
}

TEST_CASE("every truncation of a safetensors file is refused") {
  const auto whole = file_of(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CHECK_THROWS_AS(parse({whole.begin(), whole.begin() + static_cast<Index>(size)}), IoError);
  }
}

TEST_CASE("a writer's mistakes are refused before a file appears") {
  TemporaryFolder folder;
  const std::vector<float> values(6);
  const auto write = [&](std::vector<TensorToWrite> tensors) {
    graft::io::write_safetensors(folder / "x.safetensors", tensors);
  };
  const TensorToWrite good{"w", DType::f32, {2, 3}, bytes_of(values)};
  CHECK_THROWS_AS(write({good, good}), graft::ValueError);
  CHECK_THROWS_AS(write({{"w", DType::f32, {2, 2}, bytes_of(values)}}), graft::ValueError);
  CHECK_THROWS_AS(write({{"w", DType::f16, {2, 3}, bytes_of(values)}}), graft::ValueError);
  CHECK_THROWS_AS(write({{"w", DType::f32, {-2, -3}, bytes_of(values)}}), graft::ValueError);
  CHECK_THROWS_AS(write({{"__metadata__", DType::f32, {2, 3}, bytes_of(values)}}),
                  graft::ValueError);
  CHECK_THROWS_AS(write({{"\xFF", DType::f32, {2, 3}, bytes_of(values)}}), graft::ValueError);
  CHECK(folder.entries() == 0);
  CHECK_THROWS_WITH(graft::io::write_safetensors(folder / "no" / "x.safetensors", {good}),
                    Catch::Contains("x.safetensors"));
}

TEST_CASE("elements of every dtype convert to f32, f64 and i64") {
  using graft::io::to_f32;
  using graft::io::to_f64;
  using graft::io::to_i64;
  const std::vector<float> expected = {0.0F, 1.0F, 100.0F};
  const auto check = [&](DType dtype, const auto& values) {
    CAPTURE(graft::io::dtype_info(dtype).name);
    const auto view = view_of(dtype, values);
    CHECK(to_f32(view) == expected);
    CHECK(to_f64(view) == std::vector<double>{0.0, 1.0, 100.0});
    CHECK(to_i64(view) == std::vector<std::int64_t>{0, 1, 100});
  };
  check(DType::f64, std::vector<double>{0.0, 1.0, 100.0});
  check(DType::f32, expected);
  check(DType::f16, std::vector<std::uint16_t>{0, 0x3C00, 0x5640});
  check(DType::bf16, std::vector<std::uint16_t>{0, 0x3F80, 0x42C8});
  check(DType::i64, std::vector<std::int64_t>{0, 1, 100});
  check(DType::u64, std::vector<std::uint64_t>{0, 1, 100});
  check(DType::i32, std::vector<std::int32_t>{0, 1, 100});
  check(DType::u32, std::vector<std::uint32_t>{0, 1, 100});
  check(DType::i16, std::vector<std::int16_t>{0, 1, 100});
  check(DType::u16, std::vector<std::uint16_t>{0, 1, 100});
  check(DType::i8, std::vector<std::int8_t>{0, 1, 100});
  check(DType::u8, std::vector<std::uint8_t>{0, 1, 100});
  CHECK(to_i64(view_of(DType::boolean, std::vector<std::uint8_t>{0, 1, 255})) ==
        std::vector<std::int64_t>{0, 1, 1});
  CHECK(to_f32(view_of(DType::f8_e4m3, std::vector<std::uint8_t>{0x38, 0xB8, 0x7E})) ==
        std::vector<float>{1.0F, -1.0F, 448.0F});
  CHECK(to_f32(view_of(DType::f8_e5m2, std::vector<std::uint8_t>{0x3C, 0xBC, 0x7B})) ==
        std::vector<float>{1.0F, -1.0F, 57344.0F});
  CHECK(to_i64(view_of(DType::i64,
                       std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::min()}))[0] ==
        std::numeric_limits<std::int64_t>::min());
  for (const double value : {0.5, 1e30, -9.3e18, 9.223372036854775808e18, std::nan("")}) {
    CHECK_THROWS_AS(to_i64(view_of(DType::f64, std::vector<double>{value})), graft::ValueError);
  }
  CHECK_THROWS_AS(to_i64(view_of(DType::u64, std::vector<std::uint64_t>{~0ULL})),
                  graft::ValueError);
  std::vector<float> wrong(2);
  CHECK_THROWS_AS(to_f32(view_of(DType::f32, expected), wrong), graft::ShapeError);
}

TEST_CASE("tensors have the same values whatever they are stored as") {
  using graft::io::same_values;
  const std::vector<float> values = {0.0F, 1.0F, 100.0F}, other = {0.0F, 1.0F, 100.5F};
  const auto f32 = view_of(DType::f32, values);
  const std::vector<std::uint16_t> f16 = {0, 0x3C00, 0x5640};
  CHECK(same_values(f32, view_of(DType::f32, std::vector<float>(values))));
  CHECK(same_values(f32, view_of(DType::f16, f16)));
  CHECK_FALSE(same_values(f32, view_of(DType::f32, other)));
  CHECK_FALSE(same_values(view_of(DType::f32, other), view_of(DType::f16, f16)));
  CHECK_FALSE(same_values(view_of(DType::bf16, f16), view_of(DType::f16, f16)));
  auto turned = f32;
  turned.shape = {3, 1};
  CHECK_FALSE(same_values(f32, turned));

  // More than are converted at once.
  std::vector<float> many((1 << 16) + 3, 1.0F);
  const std::vector<std::uint16_t> ones(many.size(), 0x3C00);
  CHECK(same_values(view_of(DType::f32, many), view_of(DType::f16, ones)));
  many.back() = 2;
  CHECK_FALSE(same_values(view_of(DType::f32, many), view_of(DType::f16, ones)));
}

TEST_CASE("a sharded model is one set of tensors") {
  TemporaryFolder folder;
  const std::vector<float> a = {1.0F, 2.0F}, b = {3.0F}, c = {4.0F};
  graft::io::write_safetensors(
      folder / "m-1.safetensors",
      {{"a", DType::f32, {2}, bytes_of(a)}, {"unlisted", DType::f32, {1}, bytes_of(b)}});
  graft::io::write_safetensors(folder / "m-2.safetensors", {{"b", DType::f32, {1}, bytes_of(c)}});
  const auto index = folder / "model.safetensors.index.json";

  SECTION("found through the index") {
    graft_test::write_text(
        index,
        R"({"metadata":{"total_size":12},"weight_map":{"b":"m-2.safetensors","a":"m-1.safetensors"}})");
    for (const fs::path& path : {folder.path(), index}) {
      const SafetensorsModel model = SafetensorsModel::open(path);
      REQUIRE(model.tensors().size() == 2);
      CHECK(model.files().size() == 2);
      CHECK(graft::io::to_f32(model.at("a")) == a);
      CHECK(graft::io::to_f32(model.at("b")) == c);
      CHECK(model.find("unlisted") == nullptr);
      CHECK_THROWS_AS(model.at("unlisted"), IoError);
      CHECK(model.metadata().at("format") == "pt");
    }
  }
  SECTION("a single file comes first") {
    graft_test::write_text(index, "broken");
    graft::io::write_safetensors(folder / "model.safetensors",
                                 {{"z", DType::f32, {1}, bytes_of(b)}});
    CHECK(SafetensorsModel::open(folder.path()).tensors().size() == 1);
    CHECK(SafetensorsModel::open(folder / "m-2.safetensors").find("b") != nullptr);
  }
  SECTION("faults of the index are refused") {
    for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
             {"broken", "parse error"},
             {R"({})", "'weight_map' is missing"},
             {R"({"weight_map":{"a":3}})", "weight_map.a"},
             {R"({"weight_map":{"a":"../m-1.safetensors"}})", "is not a file name"},
             {R"({"weight_map":{"a":"/etc/passwd"}})", "is not a file name"},
             {R"({"weight_map":{"a":".."}})", "is not a file name"},
             {R"({"weight_map":{"a":""}})", "is not a file name"},
             {R"({"weight_map":{"c":"m-1.safetensors"}})", "tensor 'c' is missing"},
             {R"({"weight_map":{"a":"m-3.safetensors"}})", "m-3.safetensors"}}) {
      CAPTURE(text);
      graft_test::write_text(index, text);
      CHECK_THROWS_AS(SafetensorsModel::open(folder.path()), IoError);
      CHECK_THROWS_WITH(SafetensorsModel::open(folder.path()), Catch::Contains(expected));
    }
  }
  SECTION("an empty folder is refused") {
    TemporaryFolder empty;
    CHECK_THROWS_WITH(SafetensorsModel::open(empty.path()),
                      Catch::Contains("model.safetensors.index.json"));
    CHECK_THROWS_AS(SafetensorsModel::open(empty / "none.safetensors"), IoError);
  }
}
