#include "graft/adapters/bottleneck/das.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("DAS leaves blocks out in its search and those it can do without at the end") {
  graft::DASConfig config;
  config.num_skip = 2;
  config.warmup = 0;
  config.learning_rate = 10;
  config.interval = 1;
  auto skipped = std::make_shared<graft::SkippedBlocks>();
  skipped->skipped.assign(6, 0);
  graft::DASProcedure<float> das(config, skipped);
  const auto out = [&] { return std::count(skipped->skipped.begin(), skipped->skipped.end(), 1); };
  graft::StepInfo info{1, 60, 0.1};
  info.loss = [&] {
    CHECK(out() == 2);
    return (skipped->has(0) ? 3.0 : 0.1) + (skipped->has(1) ? 2.0 : 0.1);
  };
  for (; info.step <= 30; ++info.step) {
    das.before_step(info);
    CHECK(out() == 2);
    das.after_step(info);
    CHECK(out() == 0);
  }
  const auto& scores = das.scores().scores();
  for (std::size_t b = 2; b < 6; ++b) CHECK(scores[0] < scores[b]);
  das.before_step(info);
  das.after_step(info);
  CHECK(out() == 2);
  CHECK_FALSE(skipped->has(0));
  graft::ConfigValue::Map map;
  das.update_config(map);
  std::vector<Index> named;
  graft::detail::read_config("skipped_layers", map["skipped_layers"], named);
  CHECK(named == das.scores().most_dispensable(2));

  auto other = std::make_shared<graft::SkippedBlocks>();
  other->skipped.assign(6, 0);
  graft::DASProcedure<float> again(config, other);
  again.set_state(das.state());
  CHECK(other->skipped == skipped->skipped);
}

TEST_CASE("the bypass of DAS stands for its block") {
  graft::DASConfig config;
  config.rank = 3;
  graft::StandaloneInit<double> init(1);
  const graft::BasicDAS<double> adapter(config, 5, init.context());
  checks::randomize(adapter);
  CHECK(graft::trainable_elements(adapter.tensors()) == 2 * 5 * 3 + 3 + 5);
  auto skipped = std::make_shared<graft::SkippedBlocks>();
  skipped->skipped = {0, 1};
  const graft::BasicDASStack<double> stack(skipped, {&adapter, &adapter});
  REQUIRE(stack.runs_blocks());
  graft::BasicTape<double> tape;
  const auto x = tape.leaf(checks::random_tensor<double>({4, 5}, 2));
  std::vector<Index> ran;
  graft::StackBlocks<double> blocks;
  blocks.count = 2;
  blocks.block = [&](Index l, const graft::BasicVar<double>& h, const graft::BlockTokens&) {
    ran.push_back(l);
    return scale(h, 2.0);
  };
  const auto y = stack.run(x, blocks).value();
  CHECK(ran == std::vector<Index>{0});
  const auto h = scale(x, 2.0);
  CHECK(checks::relative_error(y, add(h, adapter.branch(h)).value()) < 1e-14);
  skipped->set({});
  CHECK_FALSE(stack.runs_blocks());
}
