#include "graft/layers/sites/row_groups.hpp"

#include <catch2/catch.hpp>

#include "layers/sites/support.hpp"

using graft::Index;
using graft::Tape;
using graft::Tensor;
using namespace site_tests;

TEST_CASE("Each row of a batch may name its adapter") {
  auto site = identity_site(2);
  attach(site, "a", Affine{2, 0});
  attach(site, "b", Affine{-1, 0});
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 4;
  context->row_adapters = {"b", "a", "__base__", "b"};
  CHECK(run(site, {1, 2, 3, 4, 5, 6, 7, 8}, context) ==
        std::vector<float>{-1, -2, 6, 8, 5, 6, -7, -8});
  context = std::make_shared<graft::ForwardContext>(*context);
  context->row_adapters = {"a", "b"};
  CHECK_THROWS_AS(run(site, {1, 2, 3, 4, 5, 6, 7, 8}, context), graft::ShapeError);
}

TEST_CASE("Rows come back from their groups in the order of the batch") {
  graft::ForwardContext context;
  context.batch = 4;
  context.seq_len = 2;
  context.ids = {0, 1, 10, 11, 20, 21, 30, 31};
  context.row_adapters = {"b", "a", "b", "c"};
  const graft::RowGroups groups(context, "proj", 8);
  REQUIRE(groups.groups.size() == 3);
  CHECK(groups.groups[0].name == "b");
  CHECK(groups.groups[0].rows == std::vector<Index>{0, 2});
  CHECK(groups.position == std::vector<Index>{0, 2, 1, 3});
  auto tape_context = std::make_shared<graft::ForwardContext>(context);
  Tape tape({.gradients = false});
  tape.set_context(tape_context);
  const auto x = tape.constant(Tensor::from({0, 1, 10, 11, 20, 21, 30, 31}, {8, 1}));
  std::vector<std::vector<std::int32_t>> ids;
  auto parts = groups.each(tape, context, [&](const graft::RowGroups::Group& group) {
    const auto* own = tape.context<graft::ForwardContext>();
    CHECK(own->only == group.name);
    ids.push_back(own->ids);
    return groups.part(x, group);
  });
  CHECK(tape.context<graft::ForwardContext>() == tape_context.get());
  CHECK(ids == std::vector<std::vector<std::int32_t>>{{0, 1, 20, 21}, {10, 11}, {30, 31}});
  CHECK(parts[0].shape() == graft::Shape{2, 2, 1});
  const auto y = groups.joined(std::move(parts), x.shape()).value();
  CHECK(std::equal(y.begin(), y.end(), x.value().begin()));
  CHECK_THROWS_WITH(graft::RowGroups(context, "proj", 7),
                    Catch::Contains("proj") && Catch::Contains("7 rows"));
}
