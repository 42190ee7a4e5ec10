#include "graft/adapters/low_rank/adalora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::AdaLoRA;
using graft::BasicAdaLoRA;
using graft::Index;
using A = BasicAdaLoRA<double>;

namespace {

/// Two layers with the procedure over them.
struct Pair {
  explicit Pair(graft::AdaLoRAConfig config)
      : first(checks::random_layer<float>(7, 9, 1)), second(checks::random_layer<float>(5, 7, 2)) {
    for (const auto* layer : {&first, &second}) {
      auto part = graft::linear_part(checks::make<AdaLoRA>(config, checks::site_of(*layer)));
      parts.push_back({layer == &first ? "fc1" : "fc2", part});
      methods.push_back(graft::method_of<AdaLoRA>(part.get()));
      checks::randomize(*methods.back());
    }
    procedure = std::make_unique<graft::AdaLoRAProcedure<float>>(config, parts);
  }
  /// Gradients of the size `size`, of which the optimiser took `scale`.
  void step(Index number, Index total, unsigned seed, double size = 1, double scale = 1) {
    for (auto* m : methods)
      for (auto& t : m->tensors())
        t.parameter.mutable_grad() =
            checks::random_tensor<float>(t.parameter.shape(), seed++, static_cast<float>(size));
    graft::StepInfo info{number, total, 0.1};
    info.gradient_scale = scale;
    procedure->after_step(info);
  }
  Index kept() const {
    Index count = 0;
    for (auto* m : methods)
      for (float e : m->e().value()) count += e != 0 ? 1 : 0;
    return count;
  }
  graft::DenseLinear first, second;
  std::vector<graft::PlacedPart<float>> parts;
  std::vector<AdaLoRA*> methods;
  std::unique_ptr<graft::AdaLoRAProcedure<float>> procedure;
};

}  // namespace

TEST_CASE("AdaLoRA begins as the identity, differentiates and merges") {
  CHECK(checks::change_at_init<A>({.init_rank = 3}) < 1e-13);
  CHECK(checks::gradient_error<A>({.init_rank = 3}, 7, 13) < 1e-7);
  CHECK(checks::merge_error<AdaLoRA>({.init_rank = 3}) < 1e-5);
  CHECK(checks::trained<AdaLoRA>({.init_rank = 3}, 10, 12) == 3 * (10 + 12 + 1));
  CHECK_THROWS_WITH(checks::trained<AdaLoRA>({.init_rank = 0}), Catch::Contains("init_r 0"));
  CHECK_THROWS_WITH(
      checks::trained<AdaLoRA>({.warmup_steps = 6, .final_steps = 4, .total_steps = 10}),
      Catch::Contains("leaves no step"));
}

TEST_CASE("AdaLoRA's regulariser differentiates and vanishes for orthonormal factors") {
  const auto layer = checks::random_layer<double>(8, 6, 1);
  for (const bool squared : {false, true}) {
    const auto method =
        checks::make<A>({.init_rank = 4, .squared_regulariser = squared}, checks::site_of(layer));
    checks::randomize(method);
    CHECK(graft::gradient_check(
              [&](graft::BasicTape<double>& tape) { return method.auxiliary_loss(tape); },
              {method.a(), method.b()})
              .relative_error < 1e-7);
    for (Index i = 0; i < 4; ++i) {
      for (Index j = 0; j < 6; ++j) method.a().value()(i, j) = i == j ? 1 : 0;
      for (Index j = 0; j < 8; ++j) method.b().value()(j, i) = i == j ? 1 : 0;
    }
    method.a().zero_grad();
    graft::BasicTape<double> tape;
    const auto loss = method.auxiliary_loss(tape);
    CHECK(std::abs(loss.item()) < 1e-100);
    tape.backward(loss);
    CHECK(method.a().grad()[0] == 0);
  }
}

TEST_CASE("AdaLoRA's budget falls along a cubic and the choice stays at the end") {
  Pair pair({.init_rank = 12,
             .target_rank = 4,
             .warmup_steps = 2,
             .final_steps = 3,
             .mask_interval = 2,
             .total_steps = 20});
  const Index expected[] = {24, 24, 21, 18, 16, 14, 12, 11, 10, 9, 9, 8, 8, 8, 8, 8, 8, 8, 8, 8};
  for (Index t = 1; t <= 20; ++t) CHECK(pair.procedure->budget_at(t, 20) == expected[t - 1]);
  std::vector<bool> final_choice;
  for (Index t = 1; t <= 20; ++t) {
    for (auto* m : pair.methods)
      for (float& e : m->e().value()) e = 0.5f;  // all come back between maskings
    pair.step(t, 20, static_cast<unsigned>(100 * t));
    const bool masked = t >= 17 || (t > 2 && t % 2 == 0);
    CHECK(pair.kept() == (masked ? expected[t - 1] : 24));
    if (t == 17) final_choice = pair.methods[0]->kept();
    if (t > 17) CHECK(pair.methods[0]->kept() == final_choice);
  }
  graft::ConfigValue::Map config;
  pair.procedure->update_config(config);
  CHECK(config.at("rank_pattern").get_if<graft::ConfigValue::Map>()->contains("fc2.lora_E"));
}

TEST_CASE("AdaLoRA's importance is that of the clipped gradients") {
  const graft::AdaLoRAConfig config{.init_rank = 6, .target_rank = 2, .total_steps = 10};
  Pair clipped(config), small(config), large(config);
  for (Index t = 1; t <= 3; ++t) {
    const auto seed = static_cast<unsigned>(100 * t);
    const double scale = t == 2 ? 0.25 : 1;
    clipped.step(t, 10, seed, 1, scale);
    small.step(t, 10, seed, scale);
    large.step(t, 10, seed);
  }
  CHECK(clipped.procedure->state() == small.procedure->state());
  CHECK(clipped.procedure->state() != large.procedure->state());
}

TEST_CASE("A reduced AdaLoRA computes what the whole one does") {
  Pair pair({.init_rank = 6, .target_rank = 2, .final_steps = 1, .total_steps = 4});
  for (Index t = 1; t <= 4; ++t) pair.step(t, 4, static_cast<unsigned>(100 * t));
  auto& method = *pair.methods[0];
  const auto x = checks::random_tensor<float>({3, 9}, 5);
  const auto before = checks::output(method, pair.first, x);
  const auto files = method.file_tensors();
  REQUIRE(files[0].parameter.shape()[0] < 6);
  auto reduced = checks::make<AdaLoRA>({.init_rank = 6}, checks::site_of(pair.first));
  reduced.before_load([&](std::string_view) { return &files[0].parameter.shape(); });
  for (std::size_t i = 0; i < 3; ++i)
    reduced.tensors()[i].parameter.assign(files[i].parameter.value());
  CHECK(checks::relative_error(checks::output(reduced, pair.first, x), before) < 1e-6);
  method.prune();
  CHECK(method.rank() == reduced.rank());
  CHECK(checks::relative_error(checks::output(method, pair.first, x), before) < 1e-6);
}

TEST_CASE("AdaLoRA goes on from its saved state as if nothing had happened") {
  const graft::AdaLoRAConfig config{.init_rank = 5, .target_rank = 2, .total_steps = 12};
  Pair whole(config), resumed(config);
  for (Index t = 1; t <= 6; ++t) whole.step(t, 12, static_cast<unsigned>(100 * t));
  for (std::size_t m = 0; m < 2; ++m)
    for (std::size_t i = 0; i < 3; ++i)
      resumed.methods[m]->tensors()[i].parameter.assign(
          whole.methods[m]->tensors()[i].parameter.value().clone());
  resumed.procedure->set_state(whole.procedure->state());
  for (Index t = 7; t <= 12; ++t) {
    whole.step(t, 12, static_cast<unsigned>(100 * t));
    resumed.step(t, 12, static_cast<unsigned>(100 * t));
    CHECK(whole.methods[1]->kept() == resumed.methods[1]->kept());
  }
}
