#include "graft/io/mapped_file.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <utility>

#include "temporary_folder.hpp"

using graft::IoError;
using graft::io::MappedFile;
using graft_test::TemporaryFolder;

namespace {

std::string text_of(const MappedFile& file) {
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

}  // namespace

TEST_CASE("a mapped file shows its bytes and moves") {
  TemporaryFolder folder;
  graft_test::write_text(folder / "a", "hello");
  graft_test::write_text(folder / "b", "other");
  MappedFile file(folder / "a");
  CHECK(text_of(file) == "hello");
  MappedFile moved(std::move(file));
  CHECK(text_of(moved) == "hello");
  CHECK(moved.path() == folder / "a");
  MappedFile target(folder / "b");
  target = std::move(moved);
  CHECK(text_of(target) == "hello");
  CHECK(MappedFile().bytes().empty());
}

TEST_CASE("released pages read the same again") {
  TemporaryFolder folder;
  std::string content(100000, '\0');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7);
  graft_test::write_text(folder / "a", content);
  const MappedFile file(folder / "a");
  CHECK(text_of(file) == content);
  file.release(file.bytes());
  CHECK(text_of(file) == content);
  file.release(file.bytes().subspan(1, 50000));
  file.release(file.bytes().subspan(99999));
  file.release(std::as_bytes(std::span(content)));  // not of this mapping
  CHECK(text_of(file) == content);
}

TEST_CASE("an empty file maps to nothing, folders and absent files are refused") {
  TemporaryFolder folder;
  graft_test::write_text(folder / "empty", "");
  CHECK(MappedFile(folder / "empty").bytes().empty());
  CHECK_THROWS_WITH(MappedFile(folder.path()), Catch::Contains("folder"));
  CHECK_THROWS_WITH(MappedFile(folder / "none"),
                    Catch::Contains("none") && Catch::Contains("No such file"));
  CHECK_THROWS_AS(MappedFile("/dev/null"), IoError);
}

TEST_CASE("whole files are read up to a limit") {
  TemporaryFolder folder;
  graft_test::write_text(folder / "a", std::string(200000, 'x'));
  CHECK(graft::io::read_file(folder / "a").size() == 200000);
  CHECK(graft::io::read_file(folder / "a", 200000).size() == 200000);
  CHECK_THROWS_WITH(graft::io::read_file(folder / "a", 199999),
                    Catch::Contains("larger than 199999"));
  CHECK_THROWS_AS(graft::io::read_file("/dev/zero", 100000), IoError);
  CHECK(graft::io::read_file("/dev/null").empty());
  CHECK_THROWS_AS(graft::io::read_file(folder.path()), IoError);
}
