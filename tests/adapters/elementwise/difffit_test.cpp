#include "graft/adapters/elementwise/difffit.hpp"

#include <catch2/catch.hpp>

using graft::detail::branch_block;

TEST_CASE("DiffFit finds the ends of residual branches") {
  CHECK(branch_block("vit.layers.3.attention.o_proj", true) == "vit.layers.3");
  CHECK(branch_block("vit.layers.3.attention.o_proj", false).empty());
  CHECK(branch_block("bert.encoder.layer.0.attention.output.dense", true) ==
        "bert.encoder.layer.0");
  CHECK(branch_block("bert.encoder.layer.0.attention.output.dense", false).empty());
  CHECK(branch_block("bert.encoder.layer.0.output.dense", false) == "bert.encoder.layer.0");
  CHECK(branch_block("model.layers.1.mlp.up_proj", false).empty());
}

TEST_CASE("DiffFit scales the blocks that it is told to") {
  graft::DiffFitConfig config;
  CHECK(config.wants(1, 4));
  CHECK_FALSE(config.wants(2, 4));
  CHECK(config.wants(0, 1));
  config.blocks = "all";
  CHECK(config.wants(3, 4));
  config.blocks = graft::ConfigValue::List{1, 3};
  CHECK_FALSE(config.wants(0, 4));
  CHECK(config.wants(3, 4));
  config.blocks = "last";
  CHECK_THROWS_AS(config.validate(), graft::ValueError);
}
