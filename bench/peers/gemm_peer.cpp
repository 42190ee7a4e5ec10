// Times y = x Wᵀ of one library, for compare.py: reads lines "rows in out" from standard input and
// answers each with the best and the median seconds of a product and its relative error. W is f32
// or, with -DPEER_BF16, bf16, and laid out beforehand where the library can do that. The number of
// threads is the argument. One of PEER_GRAFT, PEER_ONEDNN, PEER_OPENBLAS, PEER_EIGEN says which
// library.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#if defined(PEER_GRAFT)
#include "graft/base/thread_pool.hpp"
#include "graft/kernels/frozen.hpp"

class Product {
 public:
  static void set_threads(int threads) { graft::ThreadPool::global().set_threads(threads); }
  Product(int m, int in, int out, const float* x, const float* w, float* y)
      : m_(m), in_(in), out_(out), x_(x), y_(y) {
#if defined(PEER_BF16)
    compute_ = graft::kernels::Compute::bf16;
#endif
    panels_ = graft::kernels::PackedWeights({.out = out, .in = in, .dense = w, .row_stride = in},
                                            false, compute_);
  }
  void run() {
    graft::kernels::frozen_forward({.out = out_, .in = in_, .packed = &panels_}, x_, m_, in_,
                                   nullptr, y_, out_, false, nullptr, compute_);
  }

 private:
  graft::Index m_, in_, out_;
  const float* x_;
  float* y_;
  graft::kernels::Compute compute_ = graft::kernels::Compute::f32;
  graft::kernels::PackedWeights panels_;
};

#elif defined(PEER_ONEDNN)
#include <omp.h>

#include <dnnl.hpp>

class Product {
 public:
  static void set_threads(int threads) { omp_set_num_threads(threads); }
  Product(int m, int in, int out, const float* x, const float* w, float* y)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using dnnl::memory;
#if defined(PEER_BF16)
    constexpr auto kType = memory::data_type::bf16;
#else
    constexpr auto kType = memory::data_type::f32;
#endif
    constexpr auto kFloat = memory::data_type::f32;
    const memory::desc x_desc({m, in}, kType, memory::dims{in, 1}),
        any({in, out}, kType, memory::format_tag::any),
        y_desc({m, out}, kFloat, memory::dims{out, 1});
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc choice(engine_, x_desc, any, y_desc);
#else
    const dnnl::matmul::primitive_desc choice(dnnl::matmul::desc(x_desc, any, y_desc), engine_);
#endif
    memory plain_x({{m, in}, kFloat, memory::dims{in, 1}}, engine_, const_cast<float*>(x));
    memory plain_w({{in, out}, kFloat, memory::dims{1, in}}, engine_, const_cast<float*>(w));
    x_ = memory(x_desc, engine_);
    w_ = memory(choice.weights_desc(), engine_);
    y_ = memory(y_desc, engine_, y);
    dnnl::reorder(plain_x, x_).execute(stream_, plain_x, x_);
    dnnl::reorder(plain_w, w_).execute(stream_, plain_w, w_);
    stream_.wait();
    matmul_ = dnnl::matmul(choice);
  }
  void run() {
    matmul_.execute(stream_, {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, w_}, {DNNL_ARG_DST, y_}});
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::memory x_, w_, y_;
  dnnl::matmul matmul_;
};

#elif defined(PEER_OPENBLAS)
#include <cblas.h>

class Product {
 public:
  static void set_threads(int threads) { openblas_set_num_threads(threads); }
  Product(int m, int in, int out, const float* x, const float* w, float* y)
      : m_(m), in_(in), out_(out), x_(x), w_(w), y_(y) {}
  void run() {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m_, out_, in_, 1, x_, in_, w_, in_, 0, y_,
                out_);
  }

 private:
  int m_, in_, out_;
  const float *x_, *w_;
  float* y_;
};

#elif defined(PEER_EIGEN)
#include <Eigen/Dense>

class Product {
 public:
  static void set_threads(int threads) { Eigen::setNbThreads(threads); }
  Product(int m, int in, int out, const float* x, const float* w, float* y)
      : x_(x, m, in), w_(w, out, in), y_(y, m, out) {}
  void run() { y_.noalias() = x_ * w_.transpose(); }

 private:
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::Map<const Matrix> x_, w_;
  Eigen::Map<Matrix> y_;
};
#endif

namespace {

std::vector<float> random_values(std::size_t count) {
  static std::mt19937 generator(7);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(generator() % 2001) * 1e-3F - 1;
  return values;
}

/// Largest difference to sums in double precision over some places, relative to the largest sum.
double error_of(int m, int in, int out, const float* x, const float* w, const float* y) {
  double worst = 0, largest = 0;
  for (int place = 0; place < 64; ++place) {
    const auto i = static_cast<std::size_t>(place * 7919 % m),
               j = static_cast<std::size_t>(place * 104729 % out), n = static_cast<std::size_t>(in);
    double sum = 0;
    for (std::size_t l = 0; l < n; ++l)
      sum += static_cast<double>(x[i * n + l]) * static_cast<double>(w[j * n + l]);
    largest = std::max(largest, std::abs(sum));
    worst = std::max(worst,
                     std::abs(sum - static_cast<double>(y[i * static_cast<std::size_t>(out) + j])));
  }
  return worst / largest;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const double budget = argc > 2 ? std::atof(argv[2]) : 0.05;
  Product::set_threads(threads);
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  int m = 0, in = 0, out = 0;
  std::vector<float> w;
  int w_in = 0, w_out = 0;
  while (std::scanf("%d %d %d", &m, &in, &out) == 3) {
    const auto size = [](int a, int b) {
      return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
    };
    if (w_in != in || w_out != out) {
      w = random_values(size(in, out));
      w_in = in;
      w_out = out;
    }
    const auto x = random_values(size(m, in));
    std::vector<float> y(size(m, out));
    Product product(m, in, out, x.data(), w.data(), y.data());
    product.run();
    std::vector<double> times;
    const auto begin = Clock::now();
    while (times.size() < 3 || seconds(begin) < budget) {
      const auto start = Clock::now();
      product.run();
      times.push_back(seconds(start));
    }
    std::sort(times.begin(), times.end());
    std::printf("%.9g %.9g %.3g\n", times.front(), times[times.size() / 2],
                error_of(m, in, out, x.data(), w.data(), y.data()));
    std::fflush(stdout);
  }
  return 0;
}
