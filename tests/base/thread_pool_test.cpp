#include "graft/base/thread_pool.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using graft::Index;
using graft::ThreadPool;

namespace {

/// Sets an environment variable until the end of the scope.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = std::make_unique<std::string>(old);
    ::setenv(name, value, 1);
  }
  ~Environment() {
    if (old_ != nullptr) {
      ::setenv(name_, old_->c_str(), 1);
    } else {
      ::unsetenv(name_);
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::unique_ptr<std::string> old_;
};

}  // namespace

TEST_CASE("parallel_for calls every task once") {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (Index tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(tasks));
      pool.parallel_for(tasks, [&](Index task) { ++calls[static_cast<std::size_t>(task)]; });
      for (const auto& count : calls) CHECK(count.load() == 1);
    }
  }
}

TEST_CASE("parallel_for returns only after the last task") {
  ThreadPool pool(4);
  for (int round = 0; round < 3000; ++round) {
    std::atomic<int> sum{0};
    pool.parallel_for(5, [&](Index task) { sum += static_cast<int>(task) + 1; });
    REQUIRE(sum.load() == 15);
  }
}

TEST_CASE("Workers that have gone to sleep wake up for the next loop") {
  ThreadPool pool(2);
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> arrived{0};
    // Each of the two tasks waits for the other, so both threads must take part.
    pool.parallel_for(2, [&](Index) {
      ++arrived;
      while (arrived.load() < 2) std::this_thread::yield();
    });
    CHECK(arrived.load() == 2);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

TEST_CASE("Threads that are in time take the same tasks in every loop") {
  ThreadPool pool(2);
  for (int round = 0; round < 500; ++round) {
    std::atomic<int> arrived{0};
    std::thread::id first;
    // Both threads must take part, see above.
    pool.parallel_for(2, [&](Index task) {
      if (task == 0) first = std::this_thread::get_id();
      ++arrived;
      while (arrived.load() < 2) std::this_thread::yield();
    });
    REQUIRE(first == std::this_thread::get_id());
  }
}

TEST_CASE("A thread that is through takes the tasks of one that is not") {
  ThreadPool pool(2);
  std::atomic<int> calls{0};
  // The task that comes first waits for all others, those of its own thread among them.
  pool.parallel_for(10, [&](Index) {
    if (calls++ > 0) return;
    while (calls.load() < 10) std::this_thread::yield();
  });
  CHECK(calls.load() == 10);
}

TEST_CASE("A loop inside a task runs in the thread of the task") {
  ThreadPool pool(3);
  std::atomic<int> inner{0};
  std::atomic<bool> moved{false};
  pool.parallel_for(6, [&](Index) {
    const auto self = std::this_thread::get_id();
    pool.parallel_for(10, [&](Index) {
      ++inner;
      if (std::this_thread::get_id() != self) moved = true;
    });
  });
  CHECK(inner.load() == 60);
  CHECK_FALSE(moved.load());
}

TEST_CASE("The first exception of a task reaches the caller and the pool stays usable") {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    std::atomic<int> calls{0};
    CHECK_THROWS_WITH(pool.parallel_for(100000,
                                        [&](Index task) {
                                          ++calls;
                                          if (task == 3) throw std::runtime_error("task three");
                                        }),
                      "task three");
    CHECK(calls.load() < 100000);
    std::atomic<int> after{0};
    pool.parallel_for(50, [&](Index) { ++after; });
    CHECK(after.load() == 50);
  }
}

TEST_CASE("Loops of several threads on one pool all finish") {
  ThreadPool pool(2);
  std::atomic<int> sum{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) pool.parallel_for(4, [&](Index) { ++sum; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(sum.load() == 4 * 200 * 4);
}

TEST_CASE("The number of threads can change between loops") {
  ThreadPool pool(1);
  for (int threads : {2, 1, 4, 3}) {
    pool.set_threads(threads);
    CHECK(pool.threads() == threads);
    std::atomic<int> calls{0};
    pool.parallel_for(20, [&](Index) { ++calls; });
    CHECK(calls.load() == 20);
  }
  CHECK_THROWS_AS(pool.set_threads(0), graft::ValueError);
  CHECK_THROWS_AS(pool.set_threads(100000), graft::ValueError);
  CHECK_THROWS_AS(ThreadPool(-1), graft::ValueError);
  CHECK_THROWS_AS(pool.parallel_for(2, [&](Index) { pool.set_threads(2); }), graft::ValueError);
  CHECK(pool.threads() == 3);
}

TEST_CASE("GRAFT_NUM_THREADS sets the number of threads and is checked") {
  {
    Environment set("GRAFT_NUM_THREADS", "3");
    CHECK(graft::detail::default_threads() == 3);
  }
  {
    Environment set("GRAFT_NUM_THREADS", "");
    CHECK(graft::detail::default_threads() >= 1);
  }
  for (const char* wrong : {"0", "-2", "two", "3x", "99999"}) {
    Environment set("GRAFT_NUM_THREADS", wrong);
    CHECK_THROWS_AS(graft::detail::default_threads(), graft::ValueError);
  }
}
