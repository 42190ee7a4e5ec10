#include "graft/base/aligned_buffer.hpp"

#include <catch2/catch.hpp>

#include <cstdint>
#include <numeric>
#include <type_traits>
#include <utility>

using graft::AlignedBuffer;

TEST_CASE("an aligned buffer starts on a cache line for every size", "[base]") {
  for (const std::size_t count : {1u, 3u, 17u, 1000u, 65537u}) {
    AlignedBuffer<float> buffer(count);
    CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % graft::kAlignment == 0);
    CHECK(buffer.size() == count);
    std::iota(buffer.begin(), buffer.end(), 1.0f);
    CHECK(buffer[count - 1] == static_cast<float>(count));
    CHECK(buffer.end() - buffer.begin() == static_cast<std::ptrdiff_t>(count));
  }
}

TEST_CASE("an empty aligned buffer owns nothing", "[base]") {
  const AlignedBuffer<double> none;
  const AlignedBuffer<double> zero(0);
  CHECK(none.empty());
  CHECK(none.data() == nullptr);
  CHECK(zero.data() == nullptr);
  CHECK(zero.begin() == zero.end());
}

TEST_CASE("moving an aligned buffer moves the memory and empties the source", "[base]") {
  static_assert(!std::is_copy_constructible_v<AlignedBuffer<int>>);
  static_assert(std::is_nothrow_move_constructible_v<AlignedBuffer<int>>);
  AlignedBuffer<int> first(5);
  first[4] = 42;
  const int* address = first.data();
  AlignedBuffer<int> second(std::move(first));
  CHECK(second.data() == address);
  CHECK(first.empty());  // NOLINT: the moved-from state is what is tested
  AlignedBuffer<int> third(9);
  third = std::move(second);
  CHECK(third.data() == address);
  CHECK(third.size() == 5);
  CHECK(third[4] == 42);
  CHECK(second.data() == nullptr);
  third = AlignedBuffer<int>();
  CHECK(third.empty());
}
