#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "graft/tensor/pool.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL MemoryPool& MemoryPool::global() {
  static MemoryPool* pool = new MemoryPool;
  return *pool;
}

GRAFT_KERNEL void MemoryPool::unmap(Region* region) noexcept {
  (region->previous != nullptr ? region->previous->next : regions_) = region->next;
  if (region->next != nullptr) region->next->previous = region->previous;
  ::munmap(region->memory, region->bytes);
}

GRAFT_KERNEL MemoryPool::Block* MemoryPool::acquire(std::size_t bytes, bool to_keep) {
  const std::lock_guard lock(mutex_);
  Block* const block =
      bytes < kSmall ? take_small(class_of(bytes)) : take_large(bytes, large_[to_keep ? 1 : 0]);
  stats_.bytes_in_use += size_of(*block);
  stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
  block->references.store(1, std::memory_order_relaxed);
  return block;
}

GRAFT_KERNEL void MemoryPool::recycle(Block* block) noexcept {
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

GRAFT_KERNEL void MemoryPool::trim() {
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

GRAFT_KERNEL int MemoryPool::class_of(std::size_t bytes) {
  std::size_t units = (bytes + kAlignment - 1) / kAlignment;
  if (units < kSteps) return static_cast<int>(units);
  const int exponent = static_cast<int>(std::bit_width(units)) - 1;
  const int shift = exponent - 3;
  std::size_t step = units >> shift;  // 8 … 15
  if ((step << shift) < units) ++step;
  return (exponent - 2) * kSteps + static_cast<int>(step) - kSteps;
}

GRAFT_KERNEL MemoryPool::Block* MemoryPool::take_small(int size_class) {
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

GRAFT_KERNEL MemoryPool::Block* MemoryPool::take_large(std::size_t bytes, Lists& lists) {
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

GRAFT_KERNEL MemoryPool::Block* MemoryPool::find(std::size_t wanted, const Lists& lists) {
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

GRAFT_KERNEL MemoryPool::Block* MemoryPool::map_region(std::size_t wanted, Lists& lists) {
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
  auto* const region = ::new (base) Region{memory, bytes, base + usable, regions_, nullptr, &lists};
  if (regions_ != nullptr) regions_->previous = region;
  regions_ = region;
  auto* const block = ::new (static_cast<void*>(region->first())) Block{};
  block->bytes = usable - kAlignment;
  block->region = region;
  list(block);
  return block;
}

GRAFT_KERNEL MemoryPool::Block* MemoryPool::behind(const Block* block) noexcept {
  auto* const address =
      const_cast<std::byte*>(reinterpret_cast<const std::byte*>(block)) + block->bytes;
  return address < static_cast<const Region*>(block->region)->end
             ? reinterpret_cast<Block*>(address)
             : nullptr;
}

GRAFT_KERNEL void MemoryPool::list(Block* block) noexcept {
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

GRAFT_KERNEL void MemoryPool::unlist(Block* block) noexcept {
  const std::size_t c = class_below(block->bytes);
  Lists& lists = lists_of(block);
  Block*& head = lists.blocks[c];
  (block->previous != nullptr ? block->previous->next : head) = block->next;
  if (block->next != nullptr) block->next->previous = block->previous;
  if (head == nullptr) lists.listed[c / 64] &= ~(std::uint64_t{1} << (c % 64));
}

}  // namespace graft::inline v0_1
