#include "graft/adapters/target_match.hpp"

#include <catch2/catch.hpp>

using graft::layer_of;
using graft::takes_layer;
using graft::TargetModules;

TEST_CASE("the layer of a path is its first number behind a name") {
  CHECK(layer_of("model.layers.11.mlp.experts.3.up_proj") == 11);
  CHECK(layer_of("lm_head") == -1);
  CHECK(layer_of("model.layers.1b.q") == -1);
}

TEST_CASE("a pattern of layers may have several parts or be a regular expression") {
  const std::string path = "decoder.block.1.layer.0.SelfAttention.q";
  CHECK(layer_of(path, {"decoder.block"}) == 1);
  CHECK(layer_of(path, {"encoder.block"}) == -1);
  CHECK(layer_of(path, {"(blocks?|layers)"}) == 1);
  CHECK(layer_of(path, {"lock"}) == -1);
}

TEST_CASE("the first pattern that is found tells the layer, as in PEFT") {
  const std::string path = "decoder.block.1.layer.0.SelfAttention.q";
  CHECK(layer_of(path, {"layer", "block"}) == 0);
  CHECK(layer_of(path, {"none", "block", "layer"}) == 1);
}

TEST_CASE("a path that is named whole is taken whatever its layer, as in PEFT") {
  graft::Selection select;
  const TargetModules targets = {"lm_head", "q_proj", "model.layers.0.k_proj"};
  CHECK(takes_layer(select, targets, "model.layers.0.q_proj"));
  select.layers_to_transform = {1};
  CHECK(takes_layer(select, targets, "lm_head"));
  CHECK(takes_layer(select, targets, "model.layers.0.k_proj"));
  CHECK(takes_layer(select, targets, "model.layers.1.q_proj"));
  CHECK_FALSE(takes_layer(select, targets, "model.layers.0.q_proj"));
  CHECK_FALSE(takes_layer(select, {"head"}, "model.head"));
}
