#pragma once

#include <cstdlib>
#include <utility>

#include "graft/base/clock.hpp"
#include "graft/base/error.hpp"
#include "graft/base/thread_pool.hpp"

namespace graft::inline v0_1::detail {

inline void cpu_relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// True on a thread that is running a task of any pool.
inline bool& inside_parallel_task() noexcept {
  static thread_local bool inside = false;
  return inside;
}

GRAFT_KERNEL int default_threads() {
  if (const char* text = std::getenv("GRAFT_NUM_THREADS"); text != nullptr && *text != '\0') {
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (*end != '\0' || n < 1 || n > kMaxThreads)
      throw ValueError(
          concat("GRAFT_NUM_THREADS: expected 1 to ", kMaxThreads, ", got '", text, "'"));
    return static_cast<int>(n);
  }
  const unsigned n = std::thread::hardware_concurrency();
  return n == 0 ? 1 : n > kMaxThreads ? kMaxThreads : static_cast<int>(n);
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

GRAFT_KERNEL ThreadPool& ThreadPool::global() {
  static ThreadPool pool(detail::default_threads());
  return pool;
}

GRAFT_KERNEL void ThreadPool::set_threads(int n) {
  if (n < 1 || n > detail::kMaxThreads)
    throw ValueError(
        concat("ThreadPool::set_threads: expected 1 to ", detail::kMaxThreads, ", got ", n));
  if (detail::inside_parallel_task())
    throw ValueError("ThreadPool::set_threads: cannot be called from inside a task");
  std::lock_guard lock(loop_mutex_);
  if (n == threads_.load(std::memory_order_relaxed)) return;
  stop();
  threads_.store(n, std::memory_order_relaxed);
}

GRAFT_KERNEL void ThreadPool::run(Call call, void* context, Index tasks) {
  const auto run_alone = [&] {
    for (Index task = 0; task < tasks; ++task) call(context, task);
  };
  if (detail::inside_parallel_task() || threads() == 1) return run_alone();
  std::unique_lock lock(loop_mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return run_alone();
  if (!running_) start();

  call_ = call;
  context_ = context;
  const Index count = threads();
  for (Index thread = 0; thread < count; ++thread) {
    Share& share = shares_[static_cast<std::size_t>(thread)];
    share.next.store(tasks * thread / count, std::memory_order_relaxed);
    share.end = tasks * (thread + 1) / count;
  }
  failed_.store(false, std::memory_order_relaxed);
  const std::uint64_t epoch = (gate_.load(std::memory_order_relaxed) & ~(kOpen | kJoined)) + kEpoch;
  gate_.store(epoch | kOpen, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) {
    {
      std::lock_guard wake(park_mutex_);
    }
    park_.notify_all();
  }
  run_tasks(0);
  gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
  wait_for_joined();
  if (failed_.load(std::memory_order_relaxed)) {
    std::exception_ptr error = std::move(error_);
    error_ = nullptr;
    lock.unlock();
    std::rethrow_exception(error);
  }
}

GRAFT_KERNEL void ThreadPool::start() {
  const std::uint64_t gate = gate_.load(std::memory_order_relaxed);
  stopping_.store(false, std::memory_order_relaxed);
  const auto count = static_cast<std::size_t>(threads());
  if (shares_.size() != count) shares_ = std::vector<Share>(count);
  workers_.reserve(count - 1);
  running_ = true;
  while (workers_.size() + 1 < count)
    workers_.emplace_back([this, gate, thread = workers_.size() + 1] { work(thread, gate); });
}

GRAFT_KERNEL void ThreadPool::stop() {
  {
    std::lock_guard wake(park_mutex_);
    stopping_.store(true, std::memory_order_seq_cst);
  }
  park_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
  running_ = false;
}

GRAFT_KERNEL void ThreadPool::run_tasks(std::size_t thread) noexcept {
  bool& inside = detail::inside_parallel_task();
  inside = true;
  for (std::size_t i = 0; i < shares_.size(); ++i) {
    Share& share = shares_[(thread + i) % shares_.size()];
    while (share.next.load(std::memory_order_relaxed) < share.end) {
      const Index task = share.next.fetch_add(1, std::memory_order_relaxed);
      if (task >= share.end) break;
      try {
        call_(context_, task);
      } catch (...) {
        if (!failed_.exchange(true, std::memory_order_acq_rel)) error_ = std::current_exception();
        for (Share& rest : shares_) rest.next.store(rest.end, std::memory_order_relaxed);
      }
    }
  }
  inside = false;
}

GRAFT_KERNEL void ThreadPool::wait_for_joined() noexcept {
  int rounds = 0;
  while ((gate_.load(std::memory_order_acquire) & kJoined) != 0) {
    if (++rounds < 2000) {
      detail::cpu_relax();
    } else {
      std::this_thread::yield();
    }
  }
}

GRAFT_KERNEL bool ThreadPool::wait_for_loop(std::uint64_t seen) {
  auto ready = [&] {
    return stopping_.load(std::memory_order_seq_cst) ||
           is_new(gate_.load(std::memory_order_seq_cst), seen);
  };
  const std::int64_t end = monotonic_nanoseconds() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return !stopping_.load(std::memory_order_relaxed);
      detail::cpu_relax();
    }
  } while (monotonic_nanoseconds() < end);
  std::unique_lock lock(park_mutex_);
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  park_.wait(lock, ready);
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  return !stopping_.load(std::memory_order_relaxed);
}

GRAFT_KERNEL void ThreadPool::work(std::size_t thread, std::uint64_t seen) {
  while (wait_for_loop(seen)) {
    std::uint64_t gate = gate_.load(std::memory_order_acquire);
    // Joining and reading whether the loop is still open is one step, so a late worker never sees
    // a dead loop.
    while (is_new(gate, seen)) {
      if (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire))
        continue;
      seen = gate;
      run_tasks(thread);
      gate_.fetch_sub(1, std::memory_order_acq_rel);
      break;
    }
  }
}

}  // namespace graft::inline v0_1
