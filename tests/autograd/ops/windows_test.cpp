#include "graft/autograd/ops/windows.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/reduce.hpp"

using graft::BasicParameter;
using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

TEST_CASE("Windows of tokens are averaged and repeated, the last one may be short") {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  auto values = BasicTensor<double>::empty({2, 7, 3}),
       weights = BasicTensor<double>::empty({2, 7, 3});
  for (double& v : values) v = normal(random);
  for (double& v : weights) v = normal(random);
  for (const Index window : {1, 2, 3, 7, 9}) {
    CAPTURE(window);
    BasicTape<double> tape;
    const auto means = window_means(tape.constant(values), window);
    REQUIRE(means.dim(1) == (7 + window - 1) / window);
    const auto again = repeat_windows(means, window, 7).value();
    for (Index b = 0; b < 2; ++b)
      for (Index t = 0; t < 7; ++t)
        for (Index j = 0; j < 3; ++j) {
          const Index first = t / window * window, last = std::min<Index>(7, first + window);
          double mean = 0;
          for (Index k = first; k < last; ++k)
            mean += values[(b * 7 + k) * 3 + j] / static_cast<double>(last - first);
          CHECK(again[(b * 7 + t) * 3 + j] == Approx(mean));
        }
    const BasicParameter<double> x(values.clone());
    CHECK(graft::gradient_check(
              [&](BasicTape<double>& t) {
                const auto y =
                    repeat_windows(square(window_means(t.parameter(x), window)), window, 7);
                return sum(mul(y, t.constant(weights)));
              },
              {x})
              .relative_error < 1e-7);
  }
  BasicTape<double> tape;
  CHECK_THROWS_WITH(window_means(tape.constant(values), 0), Catch::Contains("windows of 0"));
  CHECK_THROWS_WITH(repeat_windows(tape.constant(values), 2, 7), Catch::Contains("7 tokens"));
}
