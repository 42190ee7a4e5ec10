#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "graft/base/thread_pool.hpp"
#include "graft/kernels/isa.hpp"

namespace kernel_tests {

/// Runs f(name) with every instruction set that the processor has.
template <class F>
void for_each_isa(const F& f) {
  using graft::kernels::Isa;
  const Isa before = graft::kernels::active_isa();
  struct Restore {
    Isa isa;
    ~Restore() { graft::kernels::set_isa(isa); }
  } restore{before};
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (!graft::kernels::isa_supported(isa)) continue;
    graft::kernels::set_isa(isa);
    f(graft::kernels::isa_name(isa));
  }
}

/// The results of f() with one, two and five threads.
template <class F>
auto with_threads(const F& f) {
  auto& pool = graft::ThreadPool::global();
  const int before = pool.threads();
  std::vector<decltype(f())> results;
  for (int threads : {1, 2, 5}) {
    pool.set_threads(threads);
    results.push_back(f());
  }
  pool.set_threads(before);
  return results;
}

/// Normal values that float represents exactly, in either type.
template <class T>
std::vector<T> normal_values(graft::Index n, unsigned seed, double spread = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0, spread);
  std::vector<T> values(static_cast<std::size_t>(n));
  for (T& value : values) value = static_cast<T>(static_cast<float>(normal(generator)));
  return values;
}

inline std::vector<double> widen(const std::vector<float>& x) { return {x.begin(), x.end()}; }

}  // namespace kernel_tests
