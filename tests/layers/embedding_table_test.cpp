#include "graft/layers/embedding_table.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/quant/format.hpp"

using graft::Index;

TEST_CASE("A table gives the rows of its ids, in their order and as often as they occur") {
  const auto values = checks::random_tensor<float>({7, 5}, 1);
  const graft::EmbeddingTable table(values);
  const std::vector<std::int32_t> ids = {6, 0, 6, 3};
  const auto rows = table.lookup(ids);
  CHECK(rows.shape() == graft::Shape{4, 5});
  for (std::size_t i = 0; i < ids.size(); ++i)
    for (Index j = 0; j < 5; ++j)
      CHECK(rows(static_cast<Index>(i), j) == values(static_cast<Index>(ids[i]), j));
  CHECK(table.dense().data() == values.data());
}

TEST_CASE("Ids outside of a table are refused by number") {
  const graft::EmbeddingTable table(checks::random_tensor<float>({7, 5}, 1));
  CHECK_THROWS_WITH(table.lookup(std::vector<std::int32_t>{1, 7}), Catch::Contains("id 7"));
  CHECK_THROWS_AS(table.lookup(std::vector<std::int32_t>{-1}), graft::ValueError);
}

TEST_CASE("A quantised table decodes the rows that are asked for") {
  const auto values = checks::random_tensor<float>({4, 64}, 2);
  const auto format = graft::quant::Format::q8_0;
  std::vector<std::byte> blocks(static_cast<std::size_t>(4 * graft::quant::row_bytes(format, 64)));
  graft::quant::encode(format, values.data(), values.size(), blocks.data());
  const graft::EmbeddingTable table(format, blocks.data(), 4, 64);
  const auto all = table.dense();
  CHECK(checks::relative_error(all, values) < 0.02);
  const auto rows = table.lookup(std::vector<std::int32_t>{3, 1});
  CHECK(std::equal(rows.begin(), rows.begin() + 64, all.begin() + 3 * 64));
  CHECK(std::equal(rows.begin() + 64, rows.end(), all.begin() + 64));
}
