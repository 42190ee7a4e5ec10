#include "graft/kernels/rotary.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <complex>
#include <vector>

#include "kernels/support.hpp"

using graft::Index;
using namespace kernel_tests;
using graft::kernels::rotary;
using graft::kernels::RotaryStyle;

namespace {

struct Shape {
  Index rows, heads, head_dim, rotary_dim;
};
const std::vector<Shape> kShapes{{1, 1, 2, 2},    {3, 2, 8, 8},    {5, 3, 64, 64},
                                 {4, 2, 80, 32},  {6, 1, 42, 42},  {2, 4, 128, 128},
                                 {7, 2, 100, 66}, {300, 9, 64, 64}};

template <class T>
struct Tables {
  std::vector<T> cos, sin;
  explicit Tables(const Shape& s) {
    for (const double angle : normal_values<double>(s.rows * s.rotary_dim / 2, 3, 2)) {
      cos.push_back(static_cast<T>(static_cast<float>(std::cos(angle))));
      sin.push_back(static_cast<T>(static_cast<float>(std::sin(angle))));
    }
  }
};

template <class T>
std::vector<T> rotated(const Shape& s, RotaryStyle style, bool inverse, std::vector<T> x) {
  const Tables<T> t(s);
  const Index width = s.heads * s.head_dim, ld = width + 3;
  auto apart = x;
  for (Index r = 0; r < s.rows; ++r) std::fill_n(apart.begin() + r * ld, width, T{-7});
  rotary(x.data(), apart.data(), s.rows, s.heads, s.head_dim, ld, t.cos.data(), t.sin.data(),
         s.rotary_dim, style, inverse);
  rotary(x.data(), x.data(), s.rows, s.heads, s.head_dim, ld, t.cos.data(), t.sin.data(),
         s.rotary_dim, style, inverse);
  CHECK(apart == x);
  return x;
}

}  // namespace

TEST_CASE("rotary multiplies pairs as complex numbers and leaves the rest alone") {
  for (const Shape& s : kShapes) {
    const Index ldx = s.heads * s.head_dim + 3, pairs = s.rotary_dim / 2;
    const auto x = normal_values<double>(s.rows * ldx, 1);
    const Tables<double> t(s);
    for (RotaryStyle style : {RotaryStyle::half, RotaryStyle::interleaved}) {
      auto expected = x;
      for (Index r = 0; r < s.rows; ++r) {
        for (Index h = 0; h < s.heads; ++h) {
          for (Index p = 0; p < pairs; ++p) {
            const Index head = r * ldx + h * s.head_dim;
            const auto u =
                static_cast<std::size_t>(style == RotaryStyle::half ? head + p : head + 2 * p);
            const std::size_t v =
                style == RotaryStyle::half ? u + static_cast<std::size_t>(pairs) : u + 1;
            const auto at = static_cast<std::size_t>(r * pairs + p);
            const auto z =
                std::complex<double>(x[u], x[v]) * std::complex<double>(t.cos[at], t.sin[at]);
            expected[u] = z.real();
            expected[v] = z.imag();
          }
        }
      }
      const auto found = rotated(s, style, false, x);
      double worst = 0;
      for (std::size_t i = 0; i < x.size(); ++i)
        worst = std::max(worst, std::abs(found[i] - expected[i]));
      CHECK(worst < 1e-14);
      for_each_isa([&](const char* isa) {
        CAPTURE(isa, s.head_dim, s.rotary_dim);
        const auto single = rotated(s, style, false, std::vector<float>(x.begin(), x.end()));
        double error = 0;
        for (std::size_t i = 0; i < x.size(); ++i)
          error = std::max(error, std::abs(double{single[i]} - expected[i]));
        CHECK(error < 1e-6);
      });
    }
  }
}

TEST_CASE("the inverse rotation undoes the rotation") {
  for (const Shape& s : kShapes) {
    const auto x = normal_values<float>(s.rows * (s.heads * s.head_dim + 3), 2);
    for (RotaryStyle style : {RotaryStyle::half, RotaryStyle::interleaved}) {
      for_each_isa([&](const char* isa) {
        CAPTURE(isa, s.head_dim, s.rotary_dim);
        const auto back = rotated(s, style, true, rotated(s, style, false, x));
        double error = 0;
        for (std::size_t i = 0; i < x.size(); ++i)
          error = std::max(error, std::abs(double{back[i]} - double{x[i]}));
        CHECK(error < 2e-6);
      });
    }
  }
}

TEST_CASE("rotary gives the same bits for any number of threads") {
  const Shape s = kShapes.back();
  const auto x = normal_values<float>(s.rows * (s.heads * s.head_dim + 3), 4);
  const auto results = with_threads([&] { return rotated(s, RotaryStyle::half, false, x); });
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}
