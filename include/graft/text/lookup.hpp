#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace graft::inline v0_1::text {

/// Lets a hash map with std::string keys be searched by std::string_view.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const noexcept {
    return std::hash<std::string_view>{}(text);
  }
};

template <class Value>
using StringMap = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;

/// Hash map from 64-bit keys to small values in one block of memory (open addressing, linear
/// probing). Entries are never removed. The key ~0 is reserved.
template <class Value>
class FlatMap {
 public:
  void reserve(std::size_t count) {
    std::size_t capacity = 16;
    while (capacity < 2 * count) capacity *= 2;
    if (capacity > slots_.size()) rehash(capacity);
  }
  std::size_t size() const { return size_; }

  const Value* find(std::uint64_t key) const {
    if (slots_.empty()) return nullptr;
    for (std::size_t i = place(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].first == key) return &slots_[i].second;
      if (slots_[i].first == kEmpty) return nullptr;
    }
  }
  /// The value of the key, made with Value{} if the key is new.
  Value& operator[](std::uint64_t key) {
    if (2 * (size_ + 1) > slots_.size()) rehash(slots_.empty() ? 16 : 2 * slots_.size());
    std::size_t i = place(key);
    while (slots_[i].first != key && slots_[i].first != kEmpty) i = (i + 1) & (slots_.size() - 1);
    if (slots_[i].first == kEmpty) {
      slots_[i] = {key, Value{}};
      ++size_;
    }
    return slots_[i].second;
  }

 private:
  static constexpr std::uint64_t kEmpty = std::numeric_limits<std::uint64_t>::max();

  std::size_t place(std::uint64_t key) const {
    key ^= key >> 32;
    key *= 0x9E3779B97F4A7C15ULL;  // 2^64 / golden ratio: spreads neighbouring keys
    return static_cast<std::size_t>(key >> 20) & (slots_.size() - 1);
  }
  void rehash(std::size_t capacity) {
    std::vector<std::pair<std::uint64_t, Value>> old(capacity, {kEmpty, Value{}});
    old.swap(slots_);
    for (const auto& [key, value] : old) {
      if (key == kEmpty) continue;
      std::size_t i = place(key);
      while (slots_[i].first != kEmpty) i = (i + 1) & (slots_.size() - 1);
      slots_[i] = {key, value};
    }
  }

  std::vector<std::pair<std::uint64_t, Value>> slots_;
  std::size_t size_ = 0;
};

/// Prefix tree over byte strings with an int32 at the end of each.
class ByteTrie {
 public:
  ByteTrie() { root_.fill(0); }

  bool empty() const { return values_.size() == 1; }

  /// A later value for the same key replaces the earlier one. Empty keys are ignored.
  void insert(std::string_view key, std::int32_t value) {
    if (key.empty()) return;
    std::uint32_t node = 0;
    for (const char byte : key) node = add_child(node, byte);
    values_[node] = value;
  }

  /// Calls `visit(length, value)` for each key that is a prefix of text[begin …], shortest first.
  template <class Visit>
  void for_each_prefix(std::string_view text, std::size_t begin, Visit&& visit) const {
    std::uint32_t node = 0;
    for (std::size_t i = begin; i < text.size(); ++i) {
      node = child(node, text[i]);
      if (node == 0) return;
      if (values_[node] != kNone) visit(i + 1 - begin, values_[node]);
    }
  }
  /// Length and value of the longest key that is a prefix of text[begin …]; length 0 if none is.
  std::pair<std::size_t, std::int32_t> longest_prefix(std::string_view text,
                                                      std::size_t begin) const {
    std::pair<std::size_t, std::int32_t> longest{0, kNone};
    for_each_prefix(text, begin, [&](std::size_t length, std::int32_t value) {
      longest = {length, value};
    });
    return longest;
  }

 private:
  static constexpr std::int32_t kNone = std::numeric_limits<std::int32_t>::min();

  static std::uint64_t edge(std::uint32_t node, char byte) {
    return (static_cast<std::uint64_t>(node) << 8) | static_cast<unsigned char>(byte);
  }
  std::uint32_t child(std::uint32_t node, char byte) const {
    if (node == 0) return root_[static_cast<unsigned char>(byte)];
    const std::uint32_t* found = edges_.find(edge(node, byte));
    return found == nullptr ? 0 : *found;
  }
  std::uint32_t add_child(std::uint32_t node, char byte) {
    std::uint32_t& next =
        node == 0 ? root_[static_cast<unsigned char>(byte)] : edges_[edge(node, byte)];
    if (next == 0) {
      next = static_cast<std::uint32_t>(values_.size());
      values_.push_back(kNone);
    }
    return next;
  }

  std::array<std::uint32_t, 256> root_{};
  FlatMap<std::uint32_t> edges_;
  std::vector<std::int32_t> values_{kNone};
};

}  // namespace graft::inline v0_1::text
