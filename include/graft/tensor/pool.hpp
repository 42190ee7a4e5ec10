#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>

#include "graft/base/types.hpp"
#include "graft/config.hpp"

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
  static MemoryPool& global();

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
  Block* acquire(std::size_t bytes, bool to_keep = false);

  /// Takes back a block whose last reference is gone.
  void recycle(Block* block) noexcept;

  /// Gives all cached memory back to the system.
  void trim();

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
  static int class_of(std::size_t bytes);
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

  Block* take_small(int size_class);

  Block* take_large(std::size_t bytes, Lists& lists);

  /// The smallest free block of those looked at that is large enough; null if there is none.
  static Block* find(std::size_t wanted, const Lists& lists);

  Block* map_region(std::size_t wanted, Lists& lists);
  void unmap(Region* region) noexcept;

  /// The neighbour at higher addresses; null behind the last one.
  static Block* behind(const Block* block) noexcept;
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
  static void list(Block* block) noexcept;
  static void unlist(Block* block) noexcept;

  mutable std::mutex mutex_;
  std::array<Block*, kClasses> small_{};  // lists of free blocks
  std::array<Lists, 2> large_{};          // short-lived ones, ones to keep
  Region* regions_ = nullptr;
  Stats stats_;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/tensor/impl/pool_impl.hpp"
#endif
