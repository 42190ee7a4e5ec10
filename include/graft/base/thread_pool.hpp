#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1 {

namespace detail {

inline constexpr int kMaxThreads = 1024;

/// Threads that the environment asks for, else one a processor.
GRAFT_KERNEL int default_threads();

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
  static ThreadPool& global();

  /// Changes the number of threads; waits for a loop that runs on another thread.
  /// @throws ValueError if n is not in 1 … 1024, or if called from inside a task.
  void set_threads(int n);
  int threads() const noexcept { return threads_.load(std::memory_order_relaxed); }

  /// Calls f(task) for every task in 0 … tasks − 1, in any order and on any thread; returns when
  /// all are done.
  ///
  /// Runs in the calling thread alone if there is one task or one thread, from inside a task, or
  /// while another thread uses the pool. The first exception of f is rethrown here; tasks not begun
  /// by then are dropped. Allocates nothing once the workers run.
  template <class F>
  void parallel_for(Index tasks, F&& f) {
    if (tasks <= 1) {
      if (tasks == 1) f(Index{0});
      return;
    }
    using Function = std::remove_reference_t<F>;
    run([](void* function, Index task) { (*static_cast<Function*>(function))(task); },
        const_cast<void*>(static_cast<const void*>(std::addressof(f))), tasks);
  }

 private:
  // The gate is one word: workers inside the loop (low bits), whether the loop accepts workers,
  // loop number.
  static constexpr std::uint64_t kJoined = 0xffff;
  static constexpr std::uint64_t kOpen = 0x10000;
  static constexpr std::uint64_t kEpoch = 0x20000;
  // Nanoseconds; few gaps between the loops of a step are longer.
  static constexpr std::int64_t kSpin = 200'000;

  using Call = void (*)(void* context, Index task);

  void run(Call call, void* context, Index tasks);

  void start();

  void stop();

  // Takes tasks until none is left: first those of `thread`, then those of the threads after it.
  void run_tasks(std::size_t thread) noexcept;

  void wait_for_joined() noexcept;

  // True if the gate is open for a loop that this worker has not been in.
  static bool is_new(std::uint64_t gate, std::uint64_t seen) noexcept {
    return (gate & kOpen) != 0 && (gate & ~(kOpen | kJoined)) != (seen & ~(kOpen | kJoined));
  }

  // Waits for a loop. False: the pool stops.
  bool wait_for_loop(std::uint64_t seen);

  void work(std::size_t thread, std::uint64_t seen);

  std::mutex loop_mutex_;  // held by the thread whose loop runs
  std::mutex park_mutex_;
  std::condition_variable park_;
  std::vector<std::thread> workers_;
  std::atomic<int> threads_{0};
  bool running_ = false;

  Call call_ = nullptr;
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

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/base/impl/thread_pool_impl.hpp"
#endif
