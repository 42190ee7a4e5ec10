#include "graft/models/architecture.hpp"

#include <catch2/catch.hpp>

using graft::models::Architecture;
using graft::models::Family;
using graft::models::find_architecture;
using graft::models::find_gguf_architecture;
using graft::models::supported_types;

TEST_CASE("An architecture is found by its model_type, or by its name in GGUF files") {
  CHECK(find_architecture("mistral")->family == Family::llama);
  CHECK(find_architecture("gemma3_text")->is_decoder());
  CHECK_FALSE(find_architecture("t5")->is_decoder());
  CHECK(find_architecture("mamba") == nullptr);
  REQUIRE(find_gguf_architecture("gemma3") != nullptr);
  CHECK(find_gguf_architecture("gemma3")->type == "gemma3_text");
  CHECK(find_gguf_architecture("bert") == nullptr);
  CHECK(find_gguf_architecture("") == nullptr);
}

TEST_CASE("Messages list the types that fit") {
  const auto of = [](Family family) {
    return supported_types([family](const Architecture& one) { return one.family == family; });
  };
  CHECK(of(Family::vit) == "vit is");
  CHECK(of(Family::bert) == "bert, roberta and distilbert are");
}
