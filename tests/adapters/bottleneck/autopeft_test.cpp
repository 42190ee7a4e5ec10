#include "graft/adapters/bottleneck/autopeft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::AutoPEFTConfig;
using graft::Index;

TEST_CASE("AutoPEFT counts the modules that are there") {
  AutoPEFTConfig config;
  config.layers = {1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0};
  CHECK(graft::autopeft::parameters(config, 12, 768) == 673128);
  graft::StandaloneInit<float> init(1);
  const graft::HiddenSiteInfo<float> site{
      .path = "layer.0.output", .width = 6, .layer = 0, .model = {}};
  const graft::BasicAutoPEFT<float> modules(config, site, init.context());
  const graft::AttentionSiteInfo<float> attention{.path = "layer.0.attention",
                                                  .heads = 3,
                                                  .kv_heads = 3,
                                                  .head_dim = 2,
                                                  .model = {},
                                                  .all_sites = {}};
  const graft::BasicAutoPEFTPrefix<float> prefix(config.prefix, attention, init.context());
  config.layers = {1, 0};
  CHECK(graft::trainable_elements(modules.tensors()) +
            graft::trainable_elements(prefix.tensors()) ==
        graft::autopeft::parameters(config, 2, 6));
  config.layers = {0, 0};
  CHECK(graft::autopeft::parameters(config, 2, 6) == 0);
}

TEST_CASE("the front of AutoPEFT has no configuration that another one dominates") {
  CHECK(graft::autopeft::pareto({0.5, 0.6, 0.6, 0.9}, {10, 10, 12, 40}) ==
        std::vector<char>{0, 1, 0, 1});
  CHECK(graft::autopeft::pareto({0.5, 0.5}, {3, 3}) == std::vector<char>{1, 1});
  CHECK_THROWS_AS(graft::autopeft::pareto({0.5}, {}), graft::ShapeError);
}

TEST_CASE("the search of AutoPEFT improves what it found by chance") {
  AutoPEFTConfig base;
  base.sizes = {0, 1, 3, 6, 12};
  graft::autopeft::Search search(base, 4, 8, 10, 3);
  double first = 0, best = 0;
  for (int i = 0; i < 120; ++i) {
    const auto config = search.next();
    config.validate();
    CHECK(config.layers.size() == 4);
    // Good where the first two blocks alone have a wide serial adapter.
    const double score = static_cast<double>(config.serial) *
                         static_cast<double>(config.layers[0] + config.layers[1] -
                                             config.layers[2] - config.layers[3]);
    best = std::max(best, score);
    if (i < 10) first = best;
    search.tell(config, score);
  }
  CHECK(best > first);
  CHECK(best == 24);
  for (const auto& config : search.front()) CHECK(config.sizes == base.sizes);
}

TEST_CASE("a module of AutoPEFT differentiates") {
  AutoPEFTConfig config;
  config.serial = 3;
  config.parallel = 4;
  config.non_linearity = "tanh";
  graft::StandaloneInit<double> init(1);
  const graft::BasicAutoPEFT<double> modules(
      config, {.path = "layer.0.output", .width = 5, .layer = 0, .model = {}}, init.context());
  checks::randomize(modules);
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(checks::random_tensor<double>({4, 5}, 4))};
  for (const auto& t : modules.tensors()) parameters.push_back(t.parameter);
  const auto error = graft::gradient_check(
                         [&](graft::BasicTape<double>& tape) {
                           const auto x = tape.parameter(parameters[0]);
                           const auto y = modules.apply(x, scale(x, 0.5), x);
                           return sum(mul(y, y));
                         },
                         parameters)
                         .relative_error;
  CHECK(error < 1e-7);
}
