#include "graft/kernels/gemm.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/support.hpp"

using graft::Index;
using namespace kernel_tests;
namespace kernels = graft::kernels;

namespace {

template <class T>
struct Case {
  bool trans_a, trans_b;
  Index m, n, k, lda, ldb, ldc;
  T alpha, beta;
  std::vector<T> a, b, c;

  Case(bool ta, bool tb, Index rows, Index cols, Index depth, T alpha_, T beta_, unsigned seed,
       Index gap)
      : trans_a(ta),
        trans_b(tb),
        m(rows),
        n(cols),
        k(depth),
        lda((ta ? rows : depth) + gap),
        ldb((tb ? depth : cols) + 2 * gap),
        ldc(cols + gap),
        alpha(alpha_),
        beta(beta_),
        a(normal_values<T>((ta ? depth : rows) * lda, seed)),
        b(normal_values<T>((tb ? cols : depth) * ldb, seed + 1)),
        c(normal_values<T>(rows * ldc, seed + 2)) {}

  std::vector<T> run() const {
    std::vector<T> result = c;
    kernels::gemm(trans_a, trans_b, m, n, k, alpha, a.data(), lda, b.data(), ldb, beta,
                  result.data(), ldc);
    return result;
  }

  double a_at(Index i, Index l) const {
    return static_cast<double>(a[static_cast<std::size_t>(trans_a ? l * lda + i : i * lda + l)]);
  }
  double b_at(Index l, Index j) const {
    return static_cast<double>(b[static_cast<std::size_t>(trans_b ? j * ldb + l : l * ldb + j)]);
  }

  /// Largest error a product summed; infinite if a gap was written to.
  double error(const std::vector<T>& result) const {
    double worst = 0;
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < ldc; ++j) {
        const auto at = static_cast<std::size_t>(i * ldc + j);
        if (j >= n) {
          if (result[at] != c[at]) return std::numeric_limits<double>::infinity();
          continue;
        }
        double sum = 0;
        for (Index l = 0; l < k; ++l) sum += a_at(i, l) * b_at(l, j);
        const double expected = static_cast<double>(alpha) * sum +
                                static_cast<double>(beta) * static_cast<double>(c[at]);
        const double difference = std::fabs(static_cast<double>(result[at]) - expected);
        worst = std::max(worst, difference / static_cast<double>(k + 1));
        if (std::isnan(difference)) return difference;
      }
    }
    return worst;
  }
};

struct LowRankSize {
  Index m, n, rank;
};

/// The largest error of the gradients of a low-rank product against plain loops, over the length of
/// the sums; rows of dy have `gap` values that are not numbers behind them. Also checks that the
/// bits do not depend on the number of threads.
template <class T>
double low_rank_error(const LowRankSize& s, Index gap, T alpha, T beta, unsigned seed) {
  const auto at = [](Index i) { return static_cast<std::size_t>(i); };
  const Index ldy = s.n + gap;
  auto dy = normal_values<T>(s.m * ldy, seed);
  for (Index i = 0; i < s.m; ++i)
    std::fill_n(dy.begin() + i * ldy + s.n, gap, std::numeric_limits<T>::quiet_NaN());
  const auto b = normal_values<T>(s.n * s.rank, seed + 1),
             h = normal_values<T>(s.m * s.rank, seed + 2),
             earlier = normal_values<T>(s.n * s.rank, seed + 3);
  const auto results = with_threads([&] {
    std::vector<T> both = earlier;  // db, then dh
    if (beta == 0) std::fill(both.begin(), both.end(), std::numeric_limits<T>::quiet_NaN());
    both.resize(at((s.n + s.m) * s.rank), std::numeric_limits<T>::quiet_NaN());
    kernels::low_rank_gradients(s.m, s.n, s.rank, alpha, dy.data(), ldy, b.data(), h.data(),
                                both.data() + s.n * s.rank, beta, both.data());
    return both;
  });
  const auto& found = results[0];
  for (const auto& result : results)
    CHECK(std::memcmp(result.data(), found.data(), found.size() * sizeof(T)) == 0);
  double worst = 0;
  const auto compare = [&](T value, double sum, Index length) {
    const double error = std::abs(static_cast<double>(value) - sum);
    worst = std::isnan(error)
                ? std::numeric_limits<double>::infinity()
                : std::max(worst, error / static_cast<double>(std::max<Index>(1, length)));
  };
  for (Index r = 0; r < s.rank; ++r) {
    for (Index o = 0; o < s.n; ++o) {
      double sum = beta == 0 ? 0 : static_cast<double>(beta * earlier[at(o * s.rank + r)]);
      for (Index i = 0; i < s.m; ++i)
        sum +=
            static_cast<double>(dy[at(i * ldy + o)]) * static_cast<double>(h[at(i * s.rank + r)]);
      compare(found[at(o * s.rank + r)], sum, s.m);
    }
    for (Index i = 0; i < s.m; ++i) {
      double sum = 0;
      for (Index o = 0; o < s.n; ++o)
        sum +=
            static_cast<double>(dy[at(i * ldy + o)]) * static_cast<double>(b[at(o * s.rank + r)]);
      compare(found[at((s.n + i) * s.rank + r)], static_cast<double>(alpha) * sum, s.n);
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("gemm agrees with a double-precision product for random sizes, strides and factors") {
  for_each_isa([](const char* name) {
    INFO(name);
    std::mt19937 random(11);
    auto size = [&](unsigned limit) { return static_cast<Index>(1 + random() % limit); };
    for (unsigned round = 0; round < 160; ++round) {
      const unsigned limit = round % 4 == 0 ? 9 : round % 4 == 1 ? 40 : 130;
      const Index m = size(limit), n = size(limit), k = size(round % 5 == 0 ? 700 : limit);
      const float alpha = round % 3 == 0 ? 1.0f : -0.75f;
      const float beta = round % 3 == 0 ? 0.0f : round % 3 == 1 ? 1.0f : 0.5f;
      const Case<float> c((random() & 1) != 0, (random() & 1) != 0, m, n, k, alpha, beta, round,
                          static_cast<Index>(random() % 4));
      INFO("ta " << c.trans_a << " tb " << c.trans_b << " " << m << "x" << n << "x" << k);
      REQUIRE(c.error(c.run()) < 5e-7);
    }
  });
}

TEST_CASE("gemm agrees with a double-precision product at the sizes where it changes its method") {
  struct Size {
    bool ta, tb;
    Index m, n, k, gap;
  };
  // Few rows, few columns, deep sums, several blocks of rows, rows that lie a multiple of 4 KiB
  // apart.
  const std::vector<Size> sizes{
      {false, true, 1, 577, 300, 0},    {false, true, 25, 31, 1100, 1},
      {false, true, 150, 16, 2100, 0},  {false, true, 150, 70, 1030, 0},
      {false, false, 3, 200, 1025, 0},  {false, false, 64, 16, 530, 3},
      {false, false, 12, 1024, 40, 0},  {false, false, 13, 1024, 40, 0},
      {false, false, 33, 100, 1040, 0}, {false, false, 80, 33, 1024, 0},
      {true, false, 16, 200, 500, 0},   {true, false, 200, 16, 500, 0},
      {true, false, 90, 64, 65, 1},     {true, true, 120, 20, 70, 2},
      {true, false, 141, 77, 30, 0},    {false, true, 1100, 40, 24, 0},
      {true, false, 1024, 90, 37, 0},   {true, true, 1024, 70, 41, 0},
  };
  for_each_isa([&](const char* name) {
    INFO(name);
    unsigned seed = 100;
    for (const Size& s : sizes) {
      for (float beta : {0.0f, 1.0f}) {
        const Case<float> c(s.ta, s.tb, s.m, s.n, s.k, 1.25f, beta, ++seed, s.gap);
        INFO("ta " << s.ta << " tb " << s.tb << " " << s.m << "x" << s.n << "x" << s.k);
        REQUIRE(c.error(c.run()) < 5e-7);
      }
    }
  });
}

TEST_CASE("gemm gives the same bits for any number of threads") {
  for_each_isa([](const char* name) {
    INFO(name);
    unsigned seed = 7;
    for (bool ta : {false, true}) {
      for (bool tb : {false, true}) {
        for (Index n : {16, 150}) {
          const Case<float> c(ta, tb, 130, n, 190, 0.5f, 1.0f, ++seed, 1);
          const auto results = with_threads([&] { return c.run(); });
          for (const auto& result : results)
            CHECK(std::memcmp(result.data(), results[0].data(), result.size() * sizeof(float)) ==
                  0);
        }
      }
    }
  });
}

TEST_CASE("the gradients of a low-rank product are its two products, for any number of threads") {
  for_each_isa([](const char* name) {
    INFO(name);
    unsigned seed = 40;
    // Few rows; one part a group and several; ranks that fill no vector, and above a panel.
    for (const LowRankSize& s :
         {LowRankSize{7, 40, 4}, LowRankSize{70, 530, 16}, LowRankSize{333, 1100, 5},
          LowRankSize{130, 200, 35}, LowRankSize{577, 2100, 16}})
      for (const float beta : {0.0F, 1.0F}) {
        CAPTURE(s.m, s.n, s.rank, beta);
        CHECK(low_rank_error<float>(s, 3, 0.5F, beta, seed += 4) < 5e-7);
      }
  });
}

TEST_CASE(
    "the gradients of a low-rank product of one column, one row, none, and around the limits") {
  // 31, 32 rows; ranks 64, 65; one part of few columns; a million operations, and fewer.
  const std::vector<LowRankSize> sizes{{1, 1, 1},     {1, 40, 1},    {1, 300, 17},  {300, 1001, 1},
                                       {31, 600, 16}, {32, 600, 16}, {40, 101, 64}, {40, 101, 65},
                                       {4096, 2, 64}, {64, 245, 15}, {0, 5, 3},     {5, 0, 3}};
  for_each_isa([&](const char* name) {
    INFO(name);
    unsigned seed = 70;
    for (const LowRankSize& s : sizes)
      for (const Index gap : {0, 1, 7}) {
        CAPTURE(s.m, s.n, s.rank, gap);
        CHECK(low_rank_error<float>(s, gap, 1.5F, 0.0F, seed += 4) < 2e-6);
        CHECK(low_rank_error<float>(s, gap, -2.0F, 0.5F, seed += 4) < 2e-6);
      }
  });
}

TEST_CASE("the gradients of a low-rank product in double precision") {
  unsigned seed = 90;
  for (const LowRankSize& s :
       {LowRankSize{1, 1, 1}, LowRankSize{1, 9, 3}, LowRankSize{9, 1, 3}, LowRankSize{300, 110, 1},
        LowRankSize{33, 50, 66}, LowRankSize{0, 5, 3}, LowRankSize{5, 0, 3}})
    for (const Index gap : {0, 1, 7}) {
      CAPTURE(s.m, s.n, s.rank, gap);
      CHECK(low_rank_error<double>(s, gap, 1.5, 0.0, seed += 4) < 4e-15);
      CHECK(low_rank_error<double>(s, gap, -2.0, 0.5, seed += 4) < 4e-15);
    }
}

TEST_CASE("gemm of empty sizes leaves or scales C and does not read A and B") {
  std::vector<float> c{1, 2, 3, 4, 5, 6};
  const std::vector<float> before = c;
  kernels::gemm(false, false, 0, 3, 5, 1.0f, static_cast<const float*>(nullptr), 5, nullptr, 3,
                0.0f, c.data(), 3);
  kernels::gemm(false, false, 2, 0, 5, 1.0f, static_cast<const float*>(nullptr), 5, nullptr, 3,
                0.0f, c.data(), 3);
  CHECK(c == before);
  kernels::gemm(false, true, 2, 3, 0, 1.0f, static_cast<const float*>(nullptr), 0, nullptr, 0, 0.5f,
                c.data(), 3);
  CHECK(c == std::vector<float>{0.5f, 1, 1.5f, 2, 2.5f, 3});
  c[0] = std::numeric_limits<float>::quiet_NaN();
  kernels::gemm(true, true, 2, 3, 4, 0.0f, static_cast<const float*>(nullptr), 4, nullptr, 4, 0.0f,
                c.data(), 3);
  CHECK(c == std::vector<float>(6, 0.0f));
}

TEST_CASE("gemm passes NaN and infinity on, and overwrites them where beta is 0") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float inf = std::numeric_limits<float>::infinity();
  for_each_isa([&](const char* name) {
    INFO(name);
    for (Index m : {2, 40}) {
      for (bool tb : {false, true}) {
        Case<float> c(false, tb, m, 45, 37, 1.0f, 0.0f, 3, 1);
        for (float& value : c.c) value = nan;
        auto result = c.run();
        CHECK(std::isfinite(result[0]));
        c.a[static_cast<std::size_t>(c.lda + 36)] = inf;  // row 1, the last column
        c.a[5] = nan;
        result = c.run();
        for (Index j = 0; j < 45; ++j) {
          CHECK(std::isnan(result[static_cast<std::size_t>(j)]));
          CHECK(std::isinf(result[static_cast<std::size_t>(c.ldc + j)]));
          if (m > 2) CHECK(std::isfinite(result[static_cast<std::size_t>(2 * c.ldc + j)]));
        }
      }
    }
  });
}

TEST_CASE("gemm in double precision is exact to rounding") {
  std::mt19937 random(5);
  for (unsigned round = 0; round < 40; ++round) {
    const Index m = static_cast<Index>(1 + random() % 60),
                n = static_cast<Index>(1 + random() % 60),
                k = static_cast<Index>(1 + random() % 90);
    const Case<double> c((round & 1) != 0, (round & 2) != 0, m, n, k, 0.75,
                         round % 3 == 0 ? 0.0 : 0.5, round, static_cast<Index>(round % 3));
    REQUIRE(c.error(c.run()) < 1e-15);
    const auto results = with_threads([&] { return c.run(); });
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
  }
}
