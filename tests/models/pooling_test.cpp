#include "graft/models/pooling.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <string>

using graft::Tensor;

using graft::models::pooled;
using graft::models::Pooling;
using graft::models::pooling_named;

namespace {

/// Two rows of three tokens, the second with one that is padding, behind one virtual token.
struct Rows {
  Tensor h = Tensor::from(std::vector<float>{9, 9, 1, 2, 3, -4, 5, 6,  //
                                             9, 9, 3, 4, -3, 8, 100, 100},
                          {2, 4, 2});
  graft::models::Batch batch;
  Rows() {
    batch.batch = 2;
    batch.seq_len = 3;
    batch.mask = {1, 1, 1, 1, 1, 0};
  }
};

}  // namespace

TEST_CASE("Pooling leaves out padding and virtual tokens") {
  const Rows rows;
  const auto mean = pooled(rows.h, rows.batch, Pooling::mean, false);
  CHECK(mean(0, 0) == Approx(3));
  CHECK(mean(0, 1) == Approx(4.0 / 3));
  CHECK(mean(1, 0) == Approx(0).margin(1e-6));
  CHECK(mean(1, 1) == Approx(6));
  const auto first = pooled(rows.h, rows.batch, Pooling::cls, false);
  CHECK(first(0, 0) == 1);
  CHECK(first(1, 1) == 4);
  const auto highest = pooled(rows.h, rows.batch, Pooling::max, false);
  CHECK(highest(0, 0) == 5);
  CHECK(highest(0, 1) == 6);
  CHECK(highest(1, 0) == 3);
  CHECK(highest(1, 1) == 8);
}

TEST_CASE("Normalised vectors have length one and the direction of the pooled ones") {
  const Rows rows;
  for (const auto pooling : {Pooling::mean, Pooling::cls, Pooling::max}) {
    const auto plain = pooled(rows.h, rows.batch, pooling, false);
    const auto unit = pooled(rows.h, rows.batch, pooling, true);
    for (graft::Index b = 0; b < 2; ++b) {
      CHECK(std::hypot(unit(b, 0), unit(b, 1)) == Approx(1));
      CHECK(unit(b, 0) * plain(b, 1) == Approx(unit(b, 1) * plain(b, 0)).margin(1e-5));
    }
  }
  CHECK_THROWS_WITH(pooling_named("sum"), Catch::Contains("not one of mean, cls, max"));
}
