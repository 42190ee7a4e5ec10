#include "graft/adapters/sparse/fourierft.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <numbers>
#include <vector>

#include "adapters/method_checks.hpp"

using graft::BasicFourierFT;
using graft::FourierFT;

TEST_CASE("FourierFT begins as the identity if asked to, differentiates and merges") {
  CHECK(checks::change_at_init<BasicFourierFT<double>>({.n_frequency = 9, .init_weights = true}) ==
        0);
  CHECK(checks::change_at_init<BasicFourierFT<double>>({.n_frequency = 9}) > 0.01);
  CHECK(checks::gradient_error<BasicFourierFT<double>>({.n_frequency = 9}, 7, 13) < 1e-7);
  CHECK(checks::merge_error<FourierFT>({.n_frequency = 9}) < 1e-5);
  CHECK(checks::trained<FourierFT>({.n_frequency = 9}) == 9);
  CHECK_THROWS_WITH(checks::trained<FourierFT>({.n_frequency = 121}, 10, 12),
                    Catch::Contains("expected 1 to 120"));
}

TEST_CASE("FourierFT's coefficients are where torch's permutation of the seed puts them") {
  const auto layer = checks::random_layer<double>(6, 7, 1);
  const auto method = checks::make<BasicFourierFT<double>>({.n_frequency = 3, .scaling = 42},
                                                           checks::site_of(layer));
  const auto c = std::vector<double>{1, 2, 3};
  method.tensors()[0].parameter.assign(graft::BasicTensor<double>::from(c, {3}));
  const auto merged = merge_linear(layer, method).dense_weight();
  const graft::Index places[] = {5, 2, 13};  // of the seed 777 in 6 x 7
  for (graft::Index i = 0; i < 6; ++i)
    for (graft::Index j = 0; j < 7; ++j) {
      double change = 0;
      for (std::size_t k = 0; k < 3; ++k)
        change += c[k] * std::cos(2 * std::numbers::pi *
                                  (static_cast<double>(i * (places[k] / 7)) / 6 +
                                   static_cast<double>(j * (places[k] % 7)) / 7));
      CHECK(merged(i, j) - layer.dense_weight()(i, j) == Approx(change).margin(1e-12));
    }
}
