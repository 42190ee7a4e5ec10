#include "graft/adapters/representation/positions.hpp"

#include <catch2/catch.hpp>

using graft::ConfigValue;
using graft::EditedRows;
using graft::EditPositions;
using graft::ForwardContext;
using graft::Index;

namespace {

using List = std::vector<Index>;

EditPositions ends(Index first, Index last) {
  return EditPositions::from(ConfigValue::Map{{"first", first}, {"last", last}});
}

}  // namespace

TEST_CASE("both ends of a prompt are clipped to its half") {
  const auto rows = edited_rows(ends(3, 2), nullptr, 1, 3);
  CHECK(rows.prefix == List{0});
  CHECK(rows.suffix == List{2});
  const auto whole = edited_rows(ends(3, 2), nullptr, 2, 6);
  CHECK(whole.prefix == List{0, 1, 2, 6, 7, 8});
  CHECK(whole.suffix == List{4, 5, 10, 11});
  CHECK(edited_rows(ends(3, 2), nullptr, 2, 1).prefix.empty());
}

TEST_CASE("padding, answers and virtual tokens are not edited") {
  ForwardContext context;
  context.batch = 2;
  context.token_mask = {0, 0, 1, 1, 1, 1, 1, 1, 1, 0};
  context.prompt_lengths = {2, 4};
  auto rows = edited_rows(ends(2, 1), &context, 2, 5);
  CHECK(rows.prefix == List{2, 5, 6});
  CHECK(rows.suffix == List{3, 8});
  rows = edited_rows(ends(2, 1), &context, 2, 7);  // two virtual tokens in front
  CHECK(rows.prefix == List{4, 9, 10});
  CHECK(rows.suffix == List{5, 12});
  const auto all = edited_rows(EditPositions::from("all"), &context, 2, 5);
  CHECK(all.prefix == List{2, 3, 4, 5, 6, 7, 8});
  CHECK(all.suffix.empty());
}

TEST_CASE("tokens after those of a cache are no prompt") {
  ForwardContext context;
  context.batch = 1;
  context.ids = {7};
  context.past_ids = {1, 2, 3};
  CHECK(edited_rows(ends(2, 1), &context, 1, 1).prefix.empty());
  CHECK(edited_rows(EditPositions::from("all"), &context, 1, 1).prefix == List{0});
}

TEST_CASE("positions that make no sense are refused") {
  CHECK_THROWS_AS(EditPositions::from(ConfigValue(3)), graft::ValueError);
  CHECK_THROWS_AS(EditPositions::from(ConfigValue::Map{{"first", 1}}), graft::ValueError);
  CHECK_THROWS_AS(ends(-1, 2), graft::ValueError);
  ForwardContext context;
  context.batch = 2;
  context.token_mask = {1, 1, 1, 1};
  CHECK_THROWS_AS(edited_rows(ends(1, 1), &context, 2, 1), graft::ShapeError);
  context.prompt_lengths = {1, 1, 1};
  CHECK_THROWS_AS(edited_rows(ends(1, 1), &context, 2, 2), graft::ShapeError);
}
