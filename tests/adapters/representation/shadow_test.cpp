#include "graft/adapters/representation/shadow.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "adapters/prompts/tiny_llama.hpp"

using graft::Index;
using graft::ShadowConfig;

namespace {

template <class T>
struct Setup {
  graft::models::BasicLlama<T> model{prompts::llama(), prompts::RandomWeights<T>()};
  graft::BasicAdapterModel<T> adapters{model.sites(), graft::all_methods<T>()};

  explicit Setup(const ShadowConfig& config) { adapters.add("s", config, 1); }
  graft::AdapterSet<T>& set() { return adapters.at("s"); }
  void randomize() {
    unsigned seed = 11;
    for (const auto& p : set().parameters())
      p.assign(checks::random_tensor<T>(p.shape(), seed++, 0.3));
  }
  graft::BasicTensor<T> logits(const std::vector<std::int32_t>& ids) const {
    graft::models::BasicBatch<T> b;
    b.batch = 1;
    b.seq_len = static_cast<Index>(ids.size());
    b.ids = ids;
    graft::BasicTape<T> tape({.gradients = false, .training = false});
    return model.logits(tape, b).value().clone();
  }
};

const ShadowConfig kSmall{.rank = 2, .dropout = 0, .shadow_intermediate_size = 6};

}  // namespace

TEST_CASE("A new shadow changes nothing and a trained one cannot be merged") {
  Setup<double> setup(kSmall);
  const std::vector<std::int32_t> ids{3, 1, 4, 1, 5};
  const auto with = setup.logits(ids);
  graft::BasicTensor<double> without;
  {
    const auto off = setup.adapters.disabled();
    without = setup.logits(ids);
  }
  CHECK(checks::relative_error(with, without) == 0);
  setup.randomize();
  CHECK(checks::relative_error(setup.logits(ids), without) > 1e-3);
  CHECK_THROWS_WITH(setup.adapters.merge(), Catch::Contains("depends on the input"));
}

TEST_CASE("Gradients of the task's loss and of the shadow's own are right") {
  for (const bool narrow : {false, true}) {
    auto config = kSmall;
    if (narrow) {  // an embedding of its own and a projection
      config.shadow_hidden_size = 8;
      config.update_hidden_size = 3;
    }
    Setup<double> setup(config);
    setup.randomize();
    const auto batch = prompts::Setup<double>::batch();
    const auto objective = [&](graft::BasicTape<double>& tape) {
      const auto loss = setup.model.loss(tape, batch);
      const auto own = setup.adapters.auxiliary_loss(tape);
      REQUIRE(own);
      return add(loss, own);
    };
    CHECK(graft::gradient_check(objective, setup.set().parameters(), 1e-4, 6).relative_error <
          1e-6);
    std::size_t own = 0;
    for (const auto& [key, tensor] : setup.set().tensors())
      own += key == "base_model.shadow_backbone.default.embed_tokens.weight" ||
             key == "base_model.shadow_projection.default.weight";
    CHECK(own == (narrow ? 2 : 0));
  }
}

TEST_CASE("Token by token with a cache, generation has the same shadow") {
  Setup<float> setup(kSmall);
  setup.randomize();
  std::vector<std::int32_t> all{3, 16, 18};
  const auto ids = graft::generate(setup.model, all, {.max_tokens = 6, .temperature = 0});
  REQUIRE(ids.size() == 6);
  for (const auto id : ids) {
    const auto whole = setup.logits(all);
    const float* last = whole.data() + (whole.size() - whole.cols());
    CHECK(std::max_element(last, last + whole.cols()) - last == id);
    all.push_back(id);
  }
}

TEST_CASE("layers_to_transform chooses blocks, but for those that are named whole") {
  const auto blocks = [](const ShadowConfig& config) {
    Setup<float> setup(config);
    std::vector<std::string> paths;
    for (const auto& placed : setup.set().parts())
      if (!placed.path.empty()) paths.push_back(placed.path);
    return paths;
  };
  using Paths = std::vector<std::string>;
  const Paths both{"model.layers.0", "model.layers.1"}, second{"model.layers.1"};
  auto config = kSmall;
  CHECK(blocks(config) == both);
  config.select.layers_to_transform = {1};
  CHECK(blocks(config) == second);
  config.target_modules = {"layers.0", "layers.1"};
  CHECK(blocks(config) == second);
  config.target_modules = {"model.layers.0", "model.layers.1"};
  CHECK(blocks(config) == both);
}

TEST_CASE("Shadows are refused where they cannot be") {
  const auto refused = [](ShadowConfig config, const char* word) {
    CHECK_THROWS_WITH(Setup<float>(config), Catch::Contains(word));
  };
  refused({.shadow_model = "some/model"}, "mirror");
  refused({.rank = 0}, "at least 1");
  refused({.target_modules = {"model.layers.7"}}, "match none");
  refused({.select = {.layers_to_transform = {1}, .layers_pattern = {"blocks"}}}, "match none");
  graft::BasicSiteTable<float> table;
  table.info.architecture = "gpt2";
  graft::AdapterModel model(table, graft::all_methods<float>());
  CHECK_THROWS_WITH(model.add("s", ShadowConfig{}), Catch::Contains("gpt2"));
}
