#include "graft/adapters/sparse/waveft.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "adapters/method_checks.hpp"

using graft::BasicWaveFT;
using graft::Index;
using graft::WaveFT;
using graft::WaveFTConfig;

TEST_CASE("WaveFT begins as the identity, differentiates and merges with even and odd sizes") {
  for (const char* family : {"db1", "db3", "sym4", "coif2"}) {
    const WaveFTConfig config{.n_frequency = 40, .scaling = 3, .wavelet_family = family};
    INFO(family);
    CHECK(checks::change_at_init<BasicWaveFT<double>>(config, 15, 12) < 1e-15);
    CHECK(checks::gradient_error<BasicWaveFT<double>>(config, 15, 12) < 1e-8);
    CHECK(checks::merge_error<WaveFT>(config, 12, 13) < 1e-5);
  }
  const WaveFTConfig raw{.n_frequency = 40, .use_idwt = false};
  CHECK(checks::gradient_error<BasicWaveFT<double>>(raw, 15, 12) < 1e-8);
  CHECK(checks::merge_error<WaveFT>(raw, 15, 12) < 1e-5);
  CHECK(checks::trained<WaveFT>(raw, 15, 12) == 40);
}

TEST_CASE("WaveFT's elements are where torch's permutation of the seed puts them") {
  const auto layer = checks::random_layer<float>(6, 7, 1);
  const auto method = checks::make<WaveFT>({.n_frequency = 3, .scaling = 1, .use_idwt = false},
                                           checks::site_of(layer));
  method.tensors()[0].parameter.assign(graft::Tensor::from(std::vector<float>{1, 2, 3}, {3}));
  const auto merged = merge_linear(layer, method).dense_weight();
  for (Index i = 0; i < 42; ++i) {
    const float change = i == 5 ? 1.0F : i == 2 ? 2.0F : i == 13 ? 3.0F : 0.0F;
    CHECK(merged[i] == layer.dense_weight()[i] + change);
  }
}

TEST_CASE("WaveFT shares the elements out by the size of the layers") {
  const auto layer = checks::random_layer<float>(10, 12, 1);
  auto site = checks::site_of(layer);
  site.all_sites.push_back({"other", {30, 12}});
  const WaveFTConfig config{.n_frequency = 50, .proportional_parameters = true};
  CHECK(checks::make<WaveFT>(config, site).tensors()[0].parameter.size() == 25);
}

TEST_CASE("WaveFT's filters are orthogonal to their own shifts by two, but for PEFT's coif4") {
  for (const char* family : {"haar", "db2", "db10", "sym2", "sym7", "sym10", "coif1", "coif3"}) {
    const auto h = graft::detail::wavelet_filter(family);
    double sum = 0;
    for (double v : h) sum += v;
    CHECK(sum == Approx(std::sqrt(2.0)));
    for (std::size_t shift = 0; shift < h.size(); shift += 2) {
      double product = 0;
      for (std::size_t i = shift; i < h.size(); ++i) product += h[i] * h[i - shift];
      CHECK(product == Approx(shift == 0 ? 1 : 0).margin(1e-9));
    }
  }
}

TEST_CASE("WaveFT refuses too many elements and unknown wavelets") {
  CHECK_THROWS_WITH(checks::trained<WaveFT>({.n_frequency = 181}, 15, 12),
                    Catch::Contains("n_frequency 181"));
  CHECK_THROWS_WITH(checks::trained<WaveFT>({.n_frequency = 5, .wavelet_family = "coif5"}, 15, 12),
                    Catch::Contains("coif5"));
}
