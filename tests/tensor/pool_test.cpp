#include "graft/tensor/pool.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <vector>

using graft::MemoryPool;

namespace {

unsigned char* data_of(MemoryPool::Block* block) {
  return reinterpret_cast<unsigned char*>(block) + graft::kAlignment;
}

}  // namespace

TEST_CASE("neighbours that are free become one block, whatever the order they are freed in") {
  constexpr std::size_t kBlock = 3 << 20, kCount = 16;
  std::mt19937 random(3);
  for (int round = 0; round < 4; ++round) {
    MemoryPool pool;
    std::vector<MemoryPool::Block*> blocks;
    for (std::size_t i = 0; i < kCount; ++i) {
      blocks.push_back(pool.acquire(kBlock));
      std::memset(data_of(blocks.back()), 1, kBlock);
    }
    const auto held = pool.stats();
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (auto* block : blocks) pool.recycle(block);
    CHECK(pool.stats().bytes_in_use == 0);
    CHECK(pool.stats().bytes_cached == held.bytes_in_use);
    auto* whole = pool.acquire(kCount * kBlock);
    CHECK(pool.stats().bytes_cached < 1 << 16);
    CHECK(pool.stats().system_allocations == held.system_allocations);
    pool.recycle(whole);
  }
}

TEST_CASE("blocks of the pool never overlap and keep their contents through any order of use") {
  MemoryPool pool;
  std::mt19937 random(11);
  struct Held {
    MemoryPool::Block* block;
    std::size_t bytes;
    unsigned char mark;
  };
  std::vector<Held> list;
  const auto whole = [](const Held& h) {
    const auto* data = data_of(h.block);
    return std::all_of(data, data + h.bytes, [&](unsigned char c) { return c == h.mark; });
  };
  for (int step = 0; step < 3000; ++step) {
    if (list.empty() || (list.size() < 60 && random() % 2 == 0)) {
      const std::size_t bytes = random() % (std::size_t{1} << (6 + random() % 15));
      auto* block = pool.acquire(bytes);
      REQUIRE(reinterpret_cast<std::uintptr_t>(data_of(block)) % graft::kAlignment == 0);
      const auto mark = static_cast<unsigned char>(random());
      std::memset(data_of(block), mark, bytes);
      list.push_back({block, bytes, mark});
    } else {
      std::swap(list[random() % list.size()], list.back());
      REQUIRE(whole(list.back()));
      pool.recycle(list.back().block);
      list.pop_back();
    }
    if (step % 500 == 499) pool.trim();
    REQUIRE(pool.stats().bytes_cached >= 0);
  }
  for (const auto& h : list) {
    REQUIRE(whole(h));
    pool.recycle(h.block);
  }
  CHECK(pool.stats().bytes_in_use == 0);
  pool.trim();
  CHECK(pool.stats().bytes_cached == 0);
}

TEST_CASE("blocks of changing sizes are served from what others left, without new memory") {
  // A forward pass keeps blocks of one size, a backward pass asks for another one as they go.
  MemoryPool pool;
  std::int64_t held = 0;
  for (int step = 0; step < 3; ++step) {
    std::vector<MemoryPool::Block*> kept, gradients;
    for (int i = 0; i < 40; ++i) kept.push_back(pool.acquire(std::size_t{2304} << 10));
    while (!kept.empty()) {
      pool.recycle(kept.back());
      kept.pop_back();
      if (kept.size() % 4 == 0) gradients.push_back(pool.acquire(std::size_t{6} << 20));
    }
    for (auto* block : gradients) pool.recycle(block);
    const auto stats = pool.stats();
    held = stats.bytes_in_use + stats.bytes_cached;
    CHECK(held <= stats.peak_bytes_in_use + (std::int64_t{8} << 20));
  }
  CHECK(pool.stats().system_allocations == 1);
}

TEST_CASE("memory given back to the system can be used again, around blocks that are held") {
  MemoryPool pool;
  auto* first = pool.acquire(1 << 20);
  auto* second = pool.acquire(1 << 20);
  auto* third = pool.acquire(1 << 20);
  std::memset(data_of(first), 1, 1 << 20);
  std::memset(data_of(third), 3, 1 << 20);
  pool.recycle(second);
  CHECK(pool.stats().bytes_cached > 1 << 20);
  pool.trim();
  CHECK(pool.stats().bytes_cached == 0);
  CHECK(data_of(first)[(1 << 20) - 1] == 1);
  CHECK(data_of(third)[0] == 3);
  pool.recycle(third);
  pool.recycle(first);
  const auto cached = pool.stats().bytes_cached;
  CHECK(cached > 3 << 20);
  auto* whole = pool.acquire(3 << 20);
  CHECK(pool.stats().bytes_cached >= 0);
  CHECK(pool.stats().bytes_in_use > 3 << 20);
  pool.recycle(whole);
}

TEST_CASE("blocks to keep lie side by side, and those between them in time become one when free") {
  MemoryPool pool;
  constexpr std::size_t size = std::size_t{1} << 20;
  std::vector<MemoryPool::Block*> kept, passing;
  for (int i = 0; i < 6; ++i) {
    kept.push_back(pool.acquire(size, true));
    passing.push_back(pool.acquire(size));
  }
  for (std::size_t i = 1; i < kept.size(); ++i)
    CHECK(reinterpret_cast<std::byte*>(kept[i]) ==
          reinterpret_cast<std::byte*>(kept[i - 1]) + kept[i - 1]->bytes);
  auto* const first = passing.front();
  for (auto* block : passing) pool.recycle(block);
  auto* const large = pool.acquire(6 * size);
  CHECK(large == first);
  CHECK(pool.stats().system_allocations == 2);
  pool.recycle(large);
  for (auto* block : kept) pool.recycle(block);
}
