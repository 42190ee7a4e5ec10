#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>

#include "graft/base/types.hpp"

namespace graft::inline v0_1 {

/// Caching allocator behind every tensor: what is freed is handed out again, so a training step in
/// steady state never reaches the system allocator.
///
/// Blocks below 16 KiB are kept by size: eight classes per power of two, at most 12.5 % of slack.
/// Larger ones are cut from regions of at least 256 MiB of address space, which become memory where
/// they are touched, and a freed one joins its free neighbours. So values that the backward pass
/// lets go of make room for gradients of other sizes, and a process holds little more than its
/// tensors need at their highest. Blocks that one asks for to keep, from the forward pass to the
/// backward pass, lie in regions of their own, where short-lived ones cannot tear holes between
/// them. Thread safe.
class MemoryPool {
 public:
  struct Stats {
    std::int64_t system_allocations = 0;  ///< blocks and regions ever asked of the system
    std::int64_t bytes_in_use = 0;        ///< in blocks handed out now
    std::int64_t peak_bytes_in_use = 0;   ///< highest bytes_in_use since the last reset_peak()
    std::int64_t bytes_cached = 0;        ///< free memory that was touched, kept for reuse
  };

  /// Header before the data of a block; the data begins kAlignment bytes after it.
  struct Block {
    std::atomic<std::int32_t> references;
    std::int32_t size_class;  ///< or one of the values below
    Block* next;              ///< of a list: of free blocks, or of whoever holds this one
    // Of a block in a region:
    Block* previous;       // of the list of free blocks
    Block* before;         // neighbour at lower addresses; null: the first one
    std::size_t bytes;     // header included
    std::size_t resident;  // of a free block: bytes from its start that may be in memory
    void* region;
  };
  static_assert(sizeof(Block) <= kAlignment);

  /// The pool of the process. It is never destroyed, so tensors with static storage may outlive
  /// main.
  static MemoryPool& global() {
    static MemoryPool* pool = new MemoryPool;
    return *pool;
  }

  MemoryPool() = default;
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;
  /// Blocks that are still held become invalid.
  ~MemoryPool() {
    trim();
    while (regions_ != nullptr) unmap(regions_);
  }

  /// A block with one reference and room for `bytes` bytes after its header; `to_keep` says that it
  /// will be needed for long. @throws bad_alloc
  Block* acquire(std::size_t bytes, bool to_keep = false) {
    const std::lock_guard lock(mutex_);
    Block* const block =
        bytes < kSmall ? take_small(class_of(bytes)) : take_large(bytes, large_[to_keep ? 1 : 0]);
    stats_.bytes_in_use += size_of(*block);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    block->references.store(1, std::memory_order_relaxed);
    return block;
  }

  /// Takes back a block whose last reference is gone.
  void recycle(Block* block) noexcept {
    const std::lock_guard lock(mutex_);
    const auto size = size_of(*block);
    stats_.bytes_in_use -= size;
    stats_.bytes_cached += size;
    if (block->size_class >= 0) {
      Block*& head = small_[static_cast<std::size_t>(block->size_class)];
      block->next = head;
      head = block;
      return;
    }
    block->resident = block->bytes;
    if (Block* const after = behind(block); after != nullptr && after->size_class == kFree)
      join(block, after);
    if (Block* const before = block->before; before != nullptr && before->size_class == kFree) {
      unlist(before);
      stats_.bytes_cached += static_cast<std::int64_t>(before->bytes - before->resident);
      before->resident = before->bytes + block->resident;
      absorb(before, block);
      block = before;
    }
    list(block);
  }

  /// Gives all cached memory back to the system.
  void trim() {
    const std::lock_guard lock(mutex_);
    for (Block*& head : small_) {
      while (head != nullptr) {
        Block* next = head->next;
        head->~Block();
        ::operator delete(static_cast<void*>(head), std::align_val_t{kAlignment});
        head = next;
      }
    }
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    for (Region* region = regions_; region != nullptr;) {
      Region* const next = region->next;
      Block* block = region->first();
      if (block->size_class == kFree && behind(block) == nullptr) {
        unlist(block);
        unmap(region);
      } else {
        for (; block != nullptr; block = behind(block)) {
          if (block->size_class != kFree || block->resident == 0) continue;
          const auto start = reinterpret_cast<std::uintptr_t>(block);
          const auto first = (start + sizeof(Block) + page - 1) & ~(page - 1);
          const auto last = (start + block->bytes) & ~(page - 1);
          if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
          block->resident = 0;
        }
      }
      region = next;
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
  struct Lists;
  struct Region {
    void* memory;       // as the system gave it
    std::size_t bytes;  // of it
    std::byte* end;     // of the last block
    Region *next, *previous;
    Lists* lists;  // of its free blocks
    Block* first() {
      return reinterpret_cast<Block*>(reinterpret_cast<std::byte*>(this) + kAlignment);
    }
  };
  static_assert(sizeof(Region) <= kAlignment);

  static constexpr int kSteps = 8;  // classes per power of two
  static constexpr int kClasses = 48 * kSteps;
  static constexpr std::size_t kSmall = std::size_t{16} << 10;
  static constexpr std::size_t kRegion = std::size_t{256} << 20;
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;
  /// Free blocks in regions, by the class below their bytes.
  struct Lists {
    std::array<Block*, kClasses> blocks{};
    std::array<std::uint64_t, kClasses / 64> listed{};  // which of them are not empty
  };
  static constexpr std::int32_t kUsed = -1, kFree = -2;  // size classes of blocks in regions

  /// The smallest class that has room for so many bytes.
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
  /// The largest class that is not above so many bytes.
  static std::size_t class_below(std::size_t bytes) {
    const int above = class_of(bytes);
    return static_cast<std::size_t>(capacity_of(above) > bytes ? above - 1 : above);
  }
  static std::int64_t size_of(const Block& block) {
    return static_cast<std::int64_t>(block.size_class >= 0 ? capacity_of(block.size_class)
                                                           : block.bytes);
  }

  Block* take_small(int size_class) {
    Block*& head = small_[static_cast<std::size_t>(size_class)];
    if (head != nullptr) {
      Block* const block = head;
      head = block->next;
      stats_.bytes_cached -= static_cast<std::int64_t>(capacity_of(size_class));
      return block;
    }
    ++stats_.system_allocations;
    auto* block =
        ::new (::operator new(capacity_of(size_class) + kAlignment, std::align_val_t{kAlignment}))
            Block{};
    block->size_class = size_class;
    return block;
  }

  Block* take_large(std::size_t bytes, Lists& lists) {
    // Whole pages, so that rows of different tensors do not lie a vector apart in the caches.
    const std::size_t unit = bytes < 4 * kSmall ? kAlignment : std::size_t{4096};
    const std::size_t wanted = (bytes + kAlignment + unit - 1) / unit * unit;
    Block* block = find(wanted, lists);
    if (block == nullptr) block = map_region(wanted, lists);
    unlist(block);
    if (block->bytes >= wanted + kSmall) {
      auto* rest = ::new (reinterpret_cast<std::byte*>(block) + wanted) Block{};
      rest->before = block;
      rest->bytes = block->bytes - wanted;
      rest->resident = block->resident > wanted ? block->resident - wanted : 0;
      rest->region = block->region;
      block->bytes = wanted;
      block->resident -= rest->resident;
      if (Block* const after = behind(rest)) after->before = rest;
      list(rest);
    }
    stats_.bytes_cached -= static_cast<std::int64_t>(block->resident);
    block->size_class = kUsed;
    return block;
  }

  /// The smallest free block of those looked at that is large enough; null if there is none.
  static Block* find(std::size_t wanted, const Lists& lists) {
    for (std::size_t c = class_below(wanted); c < kClasses; ++c) {
      const std::uint64_t bits = lists.listed[c / 64] >> (c % 64);
      if (bits == 0) {
        c |= 63;
        continue;
      }
      c += static_cast<std::size_t>(std::countr_zero(bits));
      Block* best = nullptr;
      int looks = 64;
      for (Block* b = lists.blocks[c]; b != nullptr && looks-- > 0; b = b->next)
        if (b->bytes >= wanted && (best == nullptr || b->bytes < best->bytes)) best = b;
      if (best != nullptr) return best;
    }
    return nullptr;
  }

  Block* map_region(std::size_t wanted, Lists& lists) {
    ++stats_.system_allocations;
    const std::size_t bytes = std::max(kRegion, wanted + kAlignment) + kHugePage;
    void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    const auto start = reinterpret_cast<std::uintptr_t>(memory);
    const auto aligned = (start + kHugePage - 1) & ~(kHugePage - 1);
    const std::size_t usable = (start + bytes - aligned) / kAlignment * kAlignment;
    ::madvise(reinterpret_cast<void*>(aligned), usable, MADV_HUGEPAGE);
    auto* const base = reinterpret_cast<std::byte*>(aligned);
    auto* const region =
        ::new (base) Region{memory, bytes, base + usable, regions_, nullptr, &lists};
    if (regions_ != nullptr) regions_->previous = region;
    regions_ = region;
    auto* const block = ::new (static_cast<void*>(region->first())) Block{};
    block->bytes = usable - kAlignment;
    block->region = region;
    list(block);
    return block;
  }
  void unmap(Region* region) noexcept {
    (region->previous != nullptr ? region->previous->next : regions_) = region->next;
    if (region->next != nullptr) region->next->previous = region->previous;
    ::munmap(region->memory, region->bytes);
  }

  /// The neighbour at higher addresses; null behind the last one.
  static Block* behind(const Block* block) noexcept {
    auto* const address =
        const_cast<std::byte*>(reinterpret_cast<const std::byte*>(block)) + block->bytes;
    return address < static_cast<const Region*>(block->region)->end
               ? reinterpret_cast<Block*>(address)
               : nullptr;
  }
  /// `block`, all of it in memory, grows by the free one behind it.
  static void join(Block* block, Block* after) noexcept {
    unlist(after);
    if (after->resident > 0) block->resident = block->bytes + after->resident;
    absorb(block, after);
  }
  static void absorb(Block* block, Block* after) noexcept {
    block->bytes += after->bytes;
    if (Block* const next = behind(block)) next->before = block;
  }
  static Lists& lists_of(const Block* block) noexcept {
    return *static_cast<const Region*>(block->region)->lists;
  }
  static void list(Block* block) noexcept {
    const std::size_t c = class_below(block->bytes);
    Lists& lists = lists_of(block);
    Block*& head = lists.blocks[c];
    block->size_class = kFree;
    block->previous = nullptr;
    block->next = head;
    if (head != nullptr) head->previous = block;
    head = block;
    lists.listed[c / 64] |= std::uint64_t{1} << (c % 64);
  }
  static void unlist(Block* block) noexcept {
    const std::size_t c = class_below(block->bytes);
    Lists& lists = lists_of(block);
    Block*& head = lists.blocks[c];
    (block->previous != nullptr ? block->previous->next : head) = block->next;
    if (block->next != nullptr) block->next->previous = block->previous;
    if (head == nullptr) lists.listed[c / 64] &= ~(std::uint64_t{1} << (c % 64));
  }

  mutable std::mutex mutex_;
  std::array<Block*, kClasses> small_{};  // lists of free blocks
  std::array<Lists, 2> large_{};          // short-lived ones, ones to keep
  Region* regions_ = nullptr;
  Stats stats_;
};

}  // namespace graft::inline v0_1
