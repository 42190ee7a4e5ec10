#include "graft/io/atomic_file.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "graft/io/mapped_file.hpp"
#include "temporary_folder.hpp"

using graft::IoError;
using graft::io::AtomicFile;
using graft::io::read_file;
using graft::io::write_file_atomically;
using graft_test::TemporaryFolder;

TEST_CASE("a file appears whole and replaces an older one") {
  TemporaryFolder folder;
  write_file_atomically(folder / "a", std::string_view("first"));
  CHECK(read_file(folder / "a") == "first");
  write_file_atomically(folder / "a", std::string_view("second\0part", 11));
  CHECK(read_file(folder / "a") == std::string("second\0part", 11));
  write_file_atomically(folder / "a", std::string_view());
  CHECK(read_file(folder / "a").empty());
  CHECK(folder.entries() == 1);
}

TEST_CASE("without commit the old content stays and nothing is left behind") {
  TemporaryFolder folder;
  write_file_atomically(folder / "a", std::string_view("old"));
  {
    AtomicFile file(folder / "a");
    file.write(std::string_view("new"));
    CHECK(read_file(folder / "a") == "old");
    CHECK(folder.entries() == 2);
  }
  CHECK(read_file(folder / "a") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("parts are appended and padded") {
  TemporaryFolder folder;
  AtomicFile file(folder / "a");
  file.pad_to(32);
  CHECK(file.size() == 0);
  file.write(std::string_view("abc"));
  file.pad_to(8);
  CHECK(file.size() == 8);
  file.write(std::string_view("d"));
  file.pad_to(256);
  file.commit();
  const std::string text = read_file(folder / "a");
  CHECK(text == std::string("abc\0\0\0\0\0d", 9) + std::string(247, '\0'));
}

TEST_CASE("a file that cannot be created is named") {
  TemporaryFolder folder;
  CHECK_THROWS_AS(write_file_atomically(folder / "none" / "a", std::string_view("x")), IoError);
  CHECK_THROWS_WITH(write_file_atomically(folder / "none" / "a", std::string_view("x")),
                    Catch::Contains("none/a"));
  std::filesystem::create_directory(folder / "taken");
  graft_test::write_text(folder / "taken" / "inside", "x");
  CHECK_THROWS_WITH(write_file_atomically(folder / "taken", std::string_view("x")),
                    Catch::Contains("taken"));
  CHECK(folder.entries() == 1);
}

TEST_CASE("readers never see a part while writers replace a file") {
  TemporaryFolder folder;
  const std::string a(100000, 'a'), b(50000, 'b');
  write_file_atomically(folder / "f", a);
  std::vector<std::thread> writers;
  for (const std::string* text : {&a, &b}) {
    writers.emplace_back([&, text] {
      for (int i = 0; i < 20; ++i) write_file_atomically(folder / "f", *text);
    });
  }
  for (int i = 0; i < 200; ++i) {
    const std::string seen = read_file(folder / "f");
    CHECK((seen == a || seen == b));
  }
  for (std::thread& writer : writers) writer.join();
  CHECK(folder.entries() == 1);
}
