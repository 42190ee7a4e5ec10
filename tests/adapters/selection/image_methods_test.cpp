// Methods of this family that change the tokens of a vision transformer.
#include <catch2/catch.hpp>

#include "adapters/prompts/tiny_vit.hpp"
#include "graft/adapters/selection/noah.hpp"
#include "graft/adapters/selection/trpts.hpp"

using graft::ConfigValue;
using graft::Index;

TEST_CASE("NOAH's prompts come and go from block to block") {
  graft::NOAHConfig config;
  config.max_prompt = config.max_rank = config.max_adapter = 5;
  config.rank = config.adapter = Index{0};
  ConfigValue::List list(static_cast<std::size_t>(prompts::kLayers), ConfigValue(Index{0}));
  list[0] = Index{2};
  list[1] = Index{1};
  config.prompt = list;
  prompts::ImageSetup<float> with(config);
  config.prompt = Index{0};
  prompts::ImageSetup<float> without(config);
  const auto y = with.logits(), plain = without.logits();
  CHECK(y.shape() == plain.shape());
  CHECK(checks::relative_error(y, plain) > 1e-4);
  const auto off = without.adapters.disabled();
  CHECK(checks::relative_error(without.logits(), plain) == 0);
}

TEST_CASE("TR-PTS fuses tokens in the blocks that are named, under the names of old files") {
  graft::TRPTSConfig config;
  config.keep_rate = 0.5;
  config.token_layers = ConfigValue::List{ConfigValue(Index{0})};
  config.target_modules = {"query"};
  prompts::ImageSetup<float> fused(config);
  config.token_layers = Index{3};  // chosen by the scores of training, none yet
  prompts::ImageSetup<float> whole(config);
  CHECK(checks::relative_error(fused.logits(), whole.logits()) > 1e-5);
  const auto tensors = fused.set().tensors();
  CHECK(tensors.size() == 2 * static_cast<std::size_t>(prompts::kLayers));
  CHECK(tensors[0].key ==
        "base_model.model.vit.encoder.layer.0.attention.attention.query.sparse_indices");
  config.target_modules = {"q_proj"};
  prompts::ImageSetup<float> named(config);
  CHECK(named.set().tensors()[0].key ==
        "base_model.model.vit.layers.0.attention.q_proj.sparse_indices");
  config.target_modules = {"query"};
  config.select.exclude_modules = {"q_proj"};
  CHECK_THROWS_WITH(prompts::ImageSetup<float>(config), Catch::Contains("match none"));
}

TEST_CASE("TR-PTS merges where no block fuses tokens, chosen or to be chosen") {
  graft::TRPTSConfig config;
  config.keep_rate = 0.5;
  config.target_modules = {"query"};
  const auto merges = [&](const ConfigValue& layers) {
    config.token_layers = layers;
    prompts::ImageSetup<float> setup(config);
    for (auto* delta : graft::selection::sparse_deltas(setup.set().parts())) delta->select({1, 5});
    setup.randomize();
    const auto before = setup.logits().clone();
    try {
      setup.adapters.merge();
    } catch (const graft::ValueError& error) {
      CHECK_THAT(error.what(), Catch::Contains("merge"));
      return false;
    }
    CHECK(checks::relative_error(setup.logits(), before) < 1e-5);
    return true;
  };
  CHECK(merges(ConfigValue::List{}));
  CHECK(merges(Index{0}));
  CHECK_FALSE(merges(Index{3}));
  CHECK_FALSE(merges(ConfigValue::List{ConfigValue(Index{0})}));
  config.keep_rate = 1;
  CHECK(merges(ConfigValue::List{ConfigValue(Index{0})}));
}
