#include "graft/layers/sites/norm_site.hpp"

#include <catch2/catch.hpp>
#include <cmath>

TEST_CASE("A norm site keeps to its norm, RMSNorm with an offset or LayerNorm") {
  graft::BasicNorm<double> rms;
  rms.weight = graft::BasicTensor<double>::from({0.5, -0.5}, {2});
  rms.eps = 0;
  rms.weight_offset = 1;
  const graft::BasicNormSite<double> site("norm", rms);
  graft::BasicTape<double> tape({.gradients = false});
  const auto x = tape.constant(graft::BasicTensor<double>::from({3, 4}, {1, 2}));
  const auto y = site(x).value();
  CHECK(y[0] == Approx(3 / std::sqrt(12.5) * 1.5));
  CHECK(y[1] == Approx(4 / std::sqrt(12.5) * 0.5));
  graft::BasicNorm<double> plain;
  plain.rms = false;
  plain.eps = 0;
  plain.bias = graft::BasicTensor<double>::from({1, 2}, {2});
  plain.weight = graft::BasicTensor<double>::from({2, 3}, {2});
  const auto z = graft::BasicNormSite<double>("norm", plain)(x).value();
  CHECK(z[0] == Approx(-1));
  CHECK(z[1] == Approx(5));
}
