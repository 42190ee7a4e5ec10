#include "graft/train/not_finite.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "train/tiny_model.hpp"

TEST_CASE("A parameter may hold a choice that is never made, no other value that is not finite") {
  const double infinity = std::numeric_limits<double>::infinity();
  const auto with = [](double v) { return graft::BasicTensor<double>::from({1, v}, {2}); };
  CHECK_FALSE(graft::has_fault(with(-infinity)));
  CHECK(graft::has_fault(with(infinity)));
  CHECK(graft::has_fault(with(std::nan(""))));
}
