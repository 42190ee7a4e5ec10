#include "graft/text/lookup.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <string>
#include <vector>

using namespace graft::text;

TEST_CASE("A flat map holds what a map holds") {
  std::mt19937_64 draw(3);
  FlatMap<int> flat;
  std::map<std::uint64_t, int> model;
  CHECK(flat.find(7) == nullptr);
  for (int i = 0; i < 20'000; ++i) {
    const std::uint64_t key = i % 3 == 0 ? draw() >> 1 : (draw() % 500) << (draw() % 40);
    flat[key] = i;
    model[key] = i;
  }
  REQUIRE(flat.size() == model.size());
  int wrong = 0;
  for (const auto& [key, value] : model) {
    const int* found = flat.find(key);
    wrong += found != nullptr && *found == value ? 0 : 1;
  }
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t key = draw() >> 1;
    wrong += (flat.find(key) != nullptr) == model.contains(key) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("A trie finds every key that is a prefix") {
  std::mt19937_64 draw(5);
  const auto word = [&](std::size_t longest) {
    std::string text;
    for (std::size_t i = draw() % longest + 1; i > 0; --i)
      text.push_back(static_cast<char>("ab\xFF\0"[draw() % 4]));
    return text;
  };
  ByteTrie trie;
  CHECK(trie.empty());
  std::map<std::string, std::int32_t> model;
  for (std::int32_t i = 0; i < 300; ++i) {
    const std::string key = word(7);
    trie.insert(key, i);
    model[key] = i;
  }
  trie.insert("", 99);  // ignored
  for (int i = 0; i < 500; ++i) {
    const std::string text = word(12);
    const std::size_t begin = draw() % text.size();
    std::vector<std::pair<std::size_t, std::int32_t>> expected, found;
    for (std::size_t length = 1; begin + length <= text.size(); ++length) {
      const auto entry = model.find(text.substr(begin, length));
      if (entry != model.end()) expected.emplace_back(length, entry->second);
    }
    trie.for_each_prefix(text, begin, [&](std::size_t length, std::int32_t value) {
      found.emplace_back(length, value);
    });
    REQUIRE(found == expected);
    const auto longest = trie.longest_prefix(text, begin);
    REQUIRE(longest.first == (expected.empty() ? 0 : expected.back().first));
  }
}
