#include "graft/tensor/fft.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

using graft::Index;

TEST_CASE(
    "the transform in float agrees with Eigen's in double for every kind of length and count") {
  std::mt19937 generator(3);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (const Index n : {1, 2, 3, 4, 5, 6, 12, 17, 49, 64, 77, 100, 576, 1024})
    for (const Index count : {1, 15, 16, 17, 32, 33, 70}) {
      INFO(n << " numbers, " << count << " vectors");
      const Index stride_x = n + 3, stride = count + 1, frequencies = n / 2 + 1;
      std::vector<float> x(static_cast<std::size_t>(stride_x * count));
      for (float& v : x) v = uniform(generator);
      const std::vector<double> wide(x.begin(), x.end());
      const auto size = static_cast<std::size_t>(stride * frequencies);
      std::vector<float> re(size), im(size), back(x.size());
      std::vector<double> re2(size), im2(size);
      graft::detail::real_fft(x.data(), stride_x, count, n, re.data(), im.data(), stride);
      graft::detail::real_fft(wide.data(), stride_x, count, n, re2.data(), im2.data(), stride);
      graft::detail::inverse_real_fft(re.data(), im.data(), stride, count, n, back.data(),
                                      stride_x);
      double worst = 0, round_trip = 0;
      for (Index f = 0; f < frequencies; ++f)
        for (Index i = 0; i < count; ++i) {
          const auto at = static_cast<std::size_t>(f * stride + i);
          worst = std::max({worst, std::abs(static_cast<double>(re[at]) - re2[at]),
                            std::abs(static_cast<double>(im[at]) - im2[at])});
        }
      for (Index i = 0; i < count; ++i)
        for (Index j = 0; j < n; ++j) {
          const auto at = static_cast<std::size_t>(i * stride_x + j);
          round_trip = std::max(round_trip, std::abs(static_cast<double>(back[at] - x[at])));
        }
      CHECK(worst < 2e-6 * std::sqrt(static_cast<double>(n)) + 1e-6);
      CHECK(round_trip < 2e-6);
    }
}

TEST_CASE("the transform back ignores imaginary parts that real numbers cannot have") {
  const float re[] = {8, 0, 0, 0, 0}, im[] = {5, 0, 0, 0, 7};
  float x[8];
  graft::detail::inverse_real_fft(re, im, 1, 1, 8, x, 8);
  for (const float v : x) CHECK(v == 1.0F);
}
