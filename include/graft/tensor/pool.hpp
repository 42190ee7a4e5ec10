#pragma once

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>

#include "graft/base/types.hpp"

namespace graft::inline v0_1 {

/// Caching allocator behind every tensor: a freed block is kept and handed out again for a request
/// of the same size class, so a training step in steady state never reaches the system allocator.
///
/// Size classes: eight per power of two, at most 12.5 % of address space (not of touched memory) is
/// slack. Thread safe.
class MemoryPool {
 public:
  struct Stats {
    std::int64_t system_allocations = 0;  ///< blocks ever asked of the system
    std::int64_t bytes_in_use = 0;        ///< in blocks handed out now
    std::int64_t peak_bytes_in_use = 0;   ///< highest bytes_in_use since the last reset_peak()
    std::int64_t bytes_cached = 0;        ///< in blocks kept for reuse
  };

  /// Header before the data of a block; the data begins kAlignment bytes after it.
  struct Block {
    std::atomic<std::int32_t> references;
    std::int32_t size_class;
    Block* next;
  };
  static_assert(sizeof(Block) <= kAlignment);

  /// The pool of the process. It is never destroyed, so tensors with static storage may outlive
  /// main.
  static MemoryPool& global() {
    static MemoryPool* pool = new MemoryPool;
    return *pool;
  }

  /// A block with one reference and room for `bytes` bytes after its header.
  Block* acquire(std::size_t bytes) {
    const int size_class = class_of(bytes);
    const std::size_t capacity = capacity_of(size_class);
    {
      const std::lock_guard lock(mutex_);
      stats_.bytes_in_use += static_cast<std::int64_t>(capacity);
      if (stats_.bytes_in_use > stats_.peak_bytes_in_use)
        stats_.peak_bytes_in_use = stats_.bytes_in_use;
      Block*& head = free_[static_cast<std::size_t>(size_class)];
      if (head != nullptr) {
        Block* block = head;
        head = block->next;
        stats_.bytes_cached -= static_cast<std::int64_t>(capacity);
        block->references.store(1, std::memory_order_relaxed);
        return block;
      }
      ++stats_.system_allocations;
    }
    constexpr std::size_t kHugePage = std::size_t{2} << 20;
    const std::size_t total = capacity + kAlignment;
    void* memory = ::operator new(total, std::align_val_t{kAlignment});
    if (total >= 2 * kHugePage) {
      const auto begin =
          (reinterpret_cast<std::uintptr_t>(memory) + kHugePage - 1) & ~(kHugePage - 1);
      const auto end = (reinterpret_cast<std::uintptr_t>(memory) + total) & ~(kHugePage - 1);
      if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
    }
    auto* block = ::new (memory) Block{};
    block->references.store(1, std::memory_order_relaxed);
    block->size_class = size_class;
    return block;
  }

  /// Takes back a block whose last reference is gone.
  void recycle(Block* block) noexcept {
    const std::lock_guard lock(mutex_);
    const auto capacity = static_cast<std::int64_t>(capacity_of(block->size_class));
    stats_.bytes_in_use -= capacity;
    stats_.bytes_cached += capacity;
    Block*& head = free_[static_cast<std::size_t>(block->size_class)];
    block->next = head;
    head = block;
  }

  /// Gives all cached blocks back to the system.
  void trim() {
    const std::lock_guard lock(mutex_);
    for (Block*& head : free_) {
      while (head != nullptr) {
        Block* next = head->next;
        head->~Block();
        ::operator delete(static_cast<void*>(head), std::align_val_t{kAlignment});
        head = next;
      }
    }
    stats_.bytes_cached = 0;
  }

  Stats stats() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak_bytes_in_use = stats_.bytes_in_use;
  }

 private:
  static constexpr int kSteps = 8;  // classes per power of two
  static constexpr int kClasses = 48 * kSteps;

  static int class_of(std::size_t bytes) {
    std::size_t units = (bytes + kAlignment - 1) / kAlignment;
    if (units < kSteps) return static_cast<int>(units);
    const int exponent = static_cast<int>(std::bit_width(units)) - 1;
    const int shift = exponent - 3;
    std::size_t step = units >> shift;  // 8 … 15
    if ((step << shift) < units) ++step;
    return (exponent - 2) * kSteps + static_cast<int>(step) - kSteps;
  }
  static std::size_t capacity_of(int size_class) {
    if (size_class < kSteps) return static_cast<std::size_t>(size_class) * kAlignment;
    const int exponent = size_class / kSteps + 2;
    const auto step = static_cast<std::size_t>(size_class % kSteps + kSteps);
    return (step << (exponent - 3)) * kAlignment;
  }

  mutable std::mutex mutex_;
  std::array<Block*, kClasses> free_{};
  Stats stats_;
};

}  // namespace graft::inline v0_1
