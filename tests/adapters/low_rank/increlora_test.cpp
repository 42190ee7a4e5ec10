#include "graft/adapters/low_rank/increlora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using IncreLoRA = graft::BasicIncreLoRA<double>;

TEST_CASE("IncreLoRA begins as the identity, has right gradients, counts and merges") {
  graft::IncreLoRAConfig config;
  config.init_rank = 3;
  CHECK(checks::change_at_init<IncreLoRA>(config) < 1e-12);
  CHECK(checks::gradient_error<IncreLoRA>(config) < 1e-7);
  CHECK(checks::merge_error<graft::IncreLoRA>(config) < 1e-5);
  CHECK(checks::trained<graft::IncreLoRA>(config, 10, 12) == 3 * 23);
  config.score = "max";
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("score 'max'"));
}

TEST_CASE("a reserve waits: its vectors learn in advance or not, its values only when active") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  for (const bool advance : {true, false}) {
    graft::IncreLoRAConfig config;
    config.init_rank = 2;
    config.advance_learn = advance;
    auto method = checks::make<IncreLoRA>(config, checks::site_of(layer));
    checks::randomize(method);
    const auto x = checks::random_tensor<double>({4, 6}, 2);
    const auto before = checks::output(method, layer, x);
    method.add_reserve(checks::random_tensor<double>({3, 6}, 3, 0.02),
                       checks::random_tensor<double>({5, 3}, 4, 0.02));
    CHECK(method.rank() == 2);
    CHECK(method.components_rank() == 5);
    CHECK(checks::relative_error(checks::output(method, layer, x), before) < 1e-6);
    const Index learning = 2 * 12 + (advance ? 3 * 11 : 0);
    CHECK(graft::trainable_elements(method.tensors()) == learning);
    const double scale = method.scaling();
    method.activate();
    CHECK(method.rank() == 5);
    CHECK(graft::trainable_elements(method.tensors()) == 5 * 12);
    CHECK(method.scaling() == Approx(scale * 2 / 5).epsilon(1e-4));
    CHECK(method.tensors().back().index->values[0] == 5);
  }
}

TEST_CASE("the orthogonality of IncreLoRA is a mean over the components of all layers") {
  graft::IncreLoRAConfig config;
  config.init_rank = 2;
  const auto layer = checks::random_layer<double>(5, 6, 1);
  graft::TorchGenerator generator(3);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  const IncreLoRA a(config, checks::site_of(layer, "a"), context);
  const auto loss = [&] {
    graft::BasicTape<double> tape;
    return a.auxiliary_loss(tape).item();
  };
  const double alone = loss();
  IncreLoRA b(config, checks::site_of(layer, "b"), context);
  CHECK(loss() == Approx(alone / 2));
  b.add_reserve(checks::random_tensor<double>({2, 6}, 3), checks::random_tensor<double>({5, 2}, 4));
  CHECK(loss() == Approx(alone / 4));
  std::vector<graft::BasicParameter<double>> parameters;
  for (const auto& t : b.tensors())
    if (t.parameter && t.parameter.trainable()) parameters.push_back(t.parameter);
  checks::randomize(b);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) { return b.auxiliary_loss(tape); }, parameters)
            .relative_error < 1e-6);
}

TEST_CASE("the modules with the largest importance grow until the target rank is reached") {
  graft::IncreLoRAConfig config;
  config.target_rank = 3;
  config.growth = 2;
  config.top = 1;
  config.warmup = 0;
  config.interval = 2;
  graft::IncreLoRAGrowth growth(config, 2);
  std::vector<Index> ranks{1, 1};
  CHECK(growth.step(0, ranks, {1, 2}).first_reserve);
  CHECK(growth.step(1, ranks, {1, 2}).grown.empty());
  const auto d = growth.step(2, ranks, {1, 2});
  CHECK(d.grown == std::vector<std::size_t>{1});
  CHECK_FALSE(d.stops);
  ranks[1] = 3;
  growth.step(3, ranks, {1, 2});
  CHECK(growth.step(4, ranks, {9, 2}).stops);
  CHECK(growth.stopped());
  CHECK_FALSE(growth.step(6, ranks, {}).stops);
}

TEST_CASE("a run of IncreLoRA grows, trains what grew and can go on from its state") {
  graft::IncreLoRAConfig config;
  config.target_rank = 4;
  config.warmup = 1;
  config.interval = 2;
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto parts = checks::placed<graft::IncreLoRAMethod<double>>(config, layer, {"a"});
  auto& method = *graft::method_of<IncreLoRA>(parts[0].part.get());
  method.components().front().e.value().fill(0.1);
  const auto procedure = graft::IncreLoRAMethod<double>::procedure(config, parts);
  const auto x = checks::random_tensor<double>({4, 6}, 2);
  const auto step = [&](Index t) {
    const graft::StepInfo info{t, 10, 0.05};
    procedure->before_step(info);
    graft::BasicTape<double> tape;
    tape.backward(sum(square(method.apply(layer, tape.constant(x)))));
    procedure->after_backward(info);
    for (const auto& tensor : method.tensors())
      if (tensor.parameter) tensor.parameter.zero_grad();
  };
  step(1);
  CHECK(method.rank() == 1);
  REQUIRE(method.components().size() == 3);
  const auto reserve = method.components()[1].a.value().clone();
  step(2);
  CHECK(checks::relative_error(method.components()[1].a.value(), reserve) > 1e-3);
  CHECK(method.components()[1].e.value()[0] == 1e-5);
  step(3);
  CHECK(method.rank() == 3);
  step(4);
  CHECK(method.components()[1].e.value()[0] != 1e-5);
  const auto state = procedure->state();
  const auto again = graft::IncreLoRAMethod<double>::procedure(config, parts);
  again->set_state(state);
  CHECK(again->state() == state);
  step(5);
  CHECK(method.rank() == 5);
  CHECK(method.components().back().e.value()[0] == 0);
}

TEST_CASE("what grew in IncreLoRA can have a schedule of its own from its growth on") {
  graft::IncreLoRAConfig config;
  config.multi_lr = true;
  config.multi_lr_warmup = 1;
  config.warmup = 100;
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto parts = checks::placed<graft::IncreLoRAMethod<double>>(config, layer, {"a"});
  const auto& method = *graft::method_of<IncreLoRA>(parts[0].part.get());
  auto procedure = graft::IncreLoRAMethod<double>::procedure(config, parts);
  // Moves of the first reserve, which grows in step 1, under a constant gradient of one.
  const auto move = [&](Index t) {
    const graft::StepInfo info{
        .step = t, .total_steps = 6, .learning_rate = 0.5, .full_learning_rate = 0.1};
    procedure->before_step(info);
    if (t == 1) {
      procedure->after_backward(info);
      return 0.0;
    }
    const auto& a = method.components()[1].a;
    graft::BasicTape<double> tape;
    tape.backward(sum(tape.parameter(a)));
    const double before = a.value()[0];
    procedure->after_backward(info);
    return before - a.value()[0];
  };
  move(1);
  CHECK(move(2) == Approx(0.1 / 2));  // the warm-up
  CHECK(move(3) == Approx(0.1));
  const auto state = procedure->state();
  procedure = graft::IncreLoRAMethod<double>::procedure(config, parts);
  procedure->set_state(state);
  CHECK(procedure->state() == state);
  CHECK(move(4) == Approx(0.1 * 3 / 4));
  CHECK(move(6) == Approx(0.1 / 4));
  CHECK_THROWS_WITH(procedure->after_backward({.step = 5, .total_steps = 6, .learning_rate = 0.5}),
                    Catch::Contains("full_learning_rate"));
  config.multi_lr_warmup = -1;
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("multi_lr_warmup -1"));
}

TEST_CASE("with a schedule for each growth, values that become active begin theirs then") {
  graft::IncreLoRAConfig config;
  config.multi_lr = true;
  config.multi_lr_warmup = 1;
  config.warmup = 0;
  config.interval = 3;
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto parts = checks::placed<graft::IncreLoRAMethod<double>>(config, layer, {"a"});
  const auto& method = *graft::method_of<IncreLoRA>(parts[0].part.get());
  const auto procedure = graft::IncreLoRAMethod<double>::procedure(config, parts);
  const auto step = [&](Index t) {
    const graft::StepInfo info{
        .step = t, .total_steps = 8, .learning_rate = 0.5, .full_learning_rate = 0.1};
    procedure->before_step(info);
    if (t == 5) {
      graft::BasicTape<double> tape;
      tape.backward(sum(tape.parameter(method.components()[1].e)));
    }
    procedure->after_backward(info);
  };
  for (Index t = 1; t <= 4; ++t) step(t);
  REQUIRE(method.components()[1].e.trainable());  // since step 4
  const double before = method.components()[1].e.value()[0];
  step(5);
  CHECK(before - method.components()[1].e.value()[0] == Approx(0.1 * config.growth_rate(5, 8, 4)));
  CHECK(config.growth_rate(5, 8, 4) != Approx(config.growth_rate(5, 8, 1)));
}

TEST_CASE("components that a file has in the same size stay the parameters that they were") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  auto method = checks::make<IncreLoRA>({.init_rank = 2}, checks::site_of(layer));
  const auto first = method.components()[0].a;
  const graft::Shape shapes[] = {{2, 6}, {1, 6}, {1, 6}};
  method.before_load([&](std::string_view name) -> const graft::Shape* {
    for (std::size_t k = 0; k < 3; ++k)
      if (name == graft::concat("lora_A.", k)) return &shapes[k];
    return nullptr;
  });
  CHECK(method.components_rank() == 4);
  CHECK(method.components()[0].a == first);
  method.tensors().back().index->values[0] = 3;
  method.after_load();
  CHECK(method.components()[1].e.trainable());
  CHECK_FALSE(method.components()[2].e.trainable());
  method.tensors().back().index->values[0] = 1;
  CHECK_THROWS_AS(method.after_load(), graft::ValueError);
}
