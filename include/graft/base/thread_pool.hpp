#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "graft/base/clock.hpp"
#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1 {

namespace detail {

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

inline constexpr int kMaxThreads = 1024;

/// Threads that the environment asks for, else one a processor.
inline int default_threads() {
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

}  // namespace detail

/// Fixed set of threads for loops of independent tasks.
///
/// Each thread has a run of neighbouring tasks of its own, the same one in every loop of as many
/// tasks, so that what a task reads is still in the caches of the core that read it last time. A
/// thread that is through with its own takes those of others, one by one, so a thread that the
/// system takes away costs one task and not a share. Idle workers spin for about 200 us, then park.
/// A loop does not wait for workers that have not joined it. The calling thread always takes part.
class ThreadPool {
 public:
  /// A pool that runs loops on `threads` threads, the caller included. Workers start at the first
  /// loop.
  /// @throws ValueError if threads < 1.
  explicit ThreadPool(int threads) { set_threads(threads); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() { stop(); }

  /// The pool that every kernel uses. Its size is GRAFT_NUM_THREADS, or else the number of
  /// processors.
  /// @throws ValueError if GRAFT_NUM_THREADS is set and not a number from 1 to 1024.
  static ThreadPool& global() {
    static ThreadPool pool(detail::default_threads());
    return pool;
  }

  /// Changes the number of threads; waits for a loop that runs on another thread.
  /// @throws ValueError if n is not in 1 … 1024, or if called from inside a task.
  void set_threads(int n) {
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
  int threads() const noexcept { return threads_.load(std::memory_order_relaxed); }

  /// Calls f(task) for every task in 0 … tasks − 1, in any order and on any thread; returns when
  /// all are done.
  ///
  /// Runs in the calling thread alone if there is one task or one thread, from inside a task, or
  /// while another thread uses the pool. The first exception of f is rethrown here; tasks not begun
  /// by then are dropped. Allocates nothing once the workers run.
  template <class F>
  void parallel_for(Index tasks, F&& f) {
    bool& inside = detail::inside_parallel_task();
    if (tasks <= 1 || inside || threads() == 1) return run_inline(tasks, f);
    std::unique_lock lock(loop_mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return run_inline(tasks, f);
    if (!running_) start();

    using Function = std::remove_reference_t<F>;
    call_ = [](void* function, Index task) { (*static_cast<Function*>(function))(task); };
    context_ = const_cast<void*>(static_cast<const void*>(std::addressof(f)));
    const Index count = threads();
    for (Index thread = 0; thread < count; ++thread) {
      Share& share = shares_[static_cast<std::size_t>(thread)];
      share.next.store(tasks * thread / count, std::memory_order_relaxed);
      share.end = tasks * (thread + 1) / count;
    }
    failed_.store(false, std::memory_order_relaxed);
    const std::uint64_t epoch =
        (gate_.load(std::memory_order_relaxed) & ~(kOpen | kJoined)) + kEpoch;
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

 private:
  // The gate is one word: workers inside the loop (low bits), whether the loop accepts workers,
  // loop number.
  static constexpr std::uint64_t kJoined = 0xffff;
  static constexpr std::uint64_t kOpen = 0x10000;
  static constexpr std::uint64_t kEpoch = 0x20000;
  // Nanoseconds; few gaps between the loops of a step are longer.
  static constexpr std::int64_t kSpin = 200'000;

  template <class F>
  static void run_inline(Index tasks, F& f) {
    for (Index task = 0; task < tasks; ++task) f(task);
  }

  void start() {
    const std::uint64_t gate = gate_.load(std::memory_order_relaxed);
    stopping_.store(false, std::memory_order_relaxed);
    const auto count = static_cast<std::size_t>(threads());
    if (shares_.size() != count) shares_ = std::vector<Share>(count);
    workers_.reserve(count - 1);
    running_ = true;
    while (workers_.size() + 1 < count)
      workers_.emplace_back([this, gate, thread = workers_.size() + 1] { work(thread, gate); });
  }

  void stop() {
    {
      std::lock_guard wake(park_mutex_);
      stopping_.store(true, std::memory_order_seq_cst);
    }
    park_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    running_ = false;
  }

  // Takes tasks until none is left: first those of `thread`, then those of the threads after it.
  void run_tasks(std::size_t thread) noexcept {
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

  void wait_for_joined() noexcept {
    int rounds = 0;
    while ((gate_.load(std::memory_order_acquire) & kJoined) != 0) {
      if (++rounds < 2000) {
        detail::cpu_relax();
      } else {
        std::this_thread::yield();
      }
    }
  }

  // True if the gate is open for a loop that this worker has not been in.
  static bool is_new(std::uint64_t gate, std::uint64_t seen) noexcept {
    return (gate & kOpen) != 0 && (gate & ~(kOpen | kJoined)) != (seen & ~(kOpen | kJoined));
  }

  // Waits for a loop. False: the pool stops.
  bool wait_for_loop(std::uint64_t seen) {
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

  void work(std::size_t thread, std::uint64_t seen) {
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

  std::mutex loop_mutex_;  // held by the thread whose loop runs
  std::mutex park_mutex_;
  std::condition_variable park_;
  std::vector<std::thread> workers_;
  std::atomic<int> threads_{0};
  bool running_ = false;

  void (*call_)(void*, Index) = nullptr;
  void* context_ = nullptr;
  // Tasks that a thread takes first.
  struct alignas(64) Share {
    std::atomic<Index> next{0};
    Index end = 0;
  };
  std::vector<Share> shares_;
  std::exception_ptr error_;

  alignas(64) std::atomic<std::uint64_t> gate_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> failed_{false};
};

}  // namespace graft::inline v0_1
