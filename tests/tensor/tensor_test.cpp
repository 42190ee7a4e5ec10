#include "graft/tensor/tensor.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <vector>

using graft::BasicTensor;
using graft::Index;
using graft::MemoryPool;
using graft::Shape;
using graft::ShapeError;
using graft::Tensor;

TEST_CASE("a tensor is a handle: copies share their elements and a clone does not") {
  const auto a = Tensor::from({1, 2, 3, 4}, {2, 2});
  const Tensor shared = a, copied = a.clone();
  a(1, 0) = 9;
  CHECK(shared(1, 0) == 9);
  CHECK(copied(1, 0) == 3);
  CHECK_FALSE(a.unique());
  CHECK(copied.unique());
}

TEST_CASE("tensor elements are aligned to a cache line") {
  for (Index n : {1, 3, 63, 1000}) {
    const auto t = Tensor::empty({n});
    CHECK(reinterpret_cast<std::uintptr_t>(t.data()) % 64 == 0);
  }
}

TEST_CASE("a reshape keeps the elements and refuses another number of them") {
  const auto a = Tensor::from({1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(a.reshape({3, 2})(2, 1) == 6);
  CHECK(a.reshape({6}).data() == a.data());
  CHECK_THROWS_AS(a.reshape({4}), ShapeError);
}

TEST_CASE("a slice of rows shares them and checks its range") {
  const auto a = Tensor::from({1, 2, 3, 4, 5, 6}, {3, 2});
  const auto middle = a.slice_rows(1, 2);
  CHECK(middle.shape() == Shape{2, 2});
  CHECK(middle.data() == a.data() + 2);
  CHECK_THROWS_AS(a.slice_rows(2, 2), ShapeError);
}

TEST_CASE("a borrowed tensor works on the memory of its owner and can keep it alive") {
  auto owner = std::make_shared<std::vector<float>>(6, 1.0F);
  std::weak_ptr<std::vector<float>> watch = owner;
  {
    const auto t = Tensor::borrow(owner->data(), {2, 3}, owner);
    t(1, 2) = 5;
    CHECK((*owner)[5] == 5);
    owner.reset();
    CHECK_FALSE(watch.expired());
  }
  CHECK(watch.expired());
}

TEST_CASE("a shape that does not fit its values names both") {
  CHECK_THROWS_WITH(Tensor::from({1, 2, 3}, {2, 2}),
                    Catch::Contains("3 values") && Catch::Contains("[2, 2]"));
}

TEST_CASE("more than six axes and negative sizes are refused") {
  CHECK_THROWS_AS(Shape({1, 1, 1, 1, 1, 1, 1}), ShapeError);
  CHECK_THROWS_AS(Shape({2, -1}), ShapeError);
}

TEST_CASE("freed blocks are handed out again instead of asking the system") {
  { const auto warm = Tensor::empty({1000, 100}); }
  const auto before = MemoryPool::global().stats();
  for (int i = 0; i < 10; ++i) {
    const auto t = Tensor::empty({1000, 100});
    CHECK(t.data() != nullptr);
  }
  const auto after = MemoryPool::global().stats();
  CHECK(after.system_allocations == before.system_allocations);
  CHECK(after.bytes_in_use == before.bytes_in_use);
}

TEST_CASE("a block of the pool has room for what was asked, with at most an eighth of slack") {
  auto& pool = MemoryPool::global();
  for (std::size_t bytes : {1UL, 64UL, 65UL, 511UL, 513UL, 4097UL, 100001UL, 123456789UL}) {
    const auto before = pool.stats().bytes_in_use;
    auto* block = pool.acquire(bytes);
    const auto got = static_cast<std::size_t>(pool.stats().bytes_in_use - before);
    CHECK(got >= bytes);
    CHECK(got <= bytes + bytes / 7 + 64);
    pool.recycle(block);
  }
  pool.trim();
  CHECK(pool.stats().bytes_cached == 0);
}
