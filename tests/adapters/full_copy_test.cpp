#include "graft/adapters/full_copy.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <vector>

#include "graft/autograd/ops/reduce.hpp"

TEST_CASE("A trained table has no gradient in the row of the padding id") {
  const auto table = graft::Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2});
  const auto gradient = [&](graft::Index padding) {
    const graft::FullEmbedding<float> part(table, padding);
    graft::Tape tape;
    const graft::BasicEmbeddingTable<float> base(table);
    const auto y = part.apply({base, {}}, tape, std::vector<std::int32_t>{2, 1, 2});
    CHECK(y.value()(0, 1) == 6);
    tape.backward(sum(y));
    const auto g = part.table().grad();
    return std::vector<float>(g.begin(), g.end());
  };
  CHECK(gradient(-1) == std::vector<float>{0, 0, 1, 1, 2, 2});
  CHECK(gradient(2) == std::vector<float>{0, 0, 1, 1, 0, 0});
}
