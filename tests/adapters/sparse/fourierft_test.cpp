#include "graft/adapters/sparse/fourierft.hpp"

#include <catch2/catch.hpp>

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
