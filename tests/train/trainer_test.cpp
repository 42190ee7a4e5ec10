#include "graft/train/trainer.hpp"

#include <catch2/catch.hpp>
#include <limits>

#include "graft/base/thread_pool.hpp"
#include "io/temporary_folder.hpp"
#include "train/tiny_model.hpp"

using graft::Index;
using graft::TrainConfig;
using graft::Trainer;
using graft_test::TemporaryFolder;

namespace {

TrainConfig config() {
  TrainConfig c;
  c.steps = 12;
  c.batch_size = 3;
  c.optimizer.learning_rate = 1e-2;
  c.schedule = {graft::Schedule::cosine, 2, 0.1};
  c.seed = 7;
  return c;
}

graft::LoRAConfig with_dropout() {
  return {.rank = 4, .alpha = 8, .dropout = 0.2, .target_modules = "all-linear"};
}

/// Counts the calls of the trainer and carries a number from step to step.
struct Counting final : graft::Procedure<float> {
  void before_step(const graft::StepInfo& info) override { text += concat("b", info.step); }
  void after_backward(const graft::StepInfo&) override { text += "g"; }
  void after_step(const graft::StepInfo& info) override {
    text += concat("a/", info.total_steps, " ");
    ++number;
    scales.push_back(info.gradient_scale);
  }
  std::map<std::string, std::vector<double>> state() const override {
    return {{"number", {number}}};
  }
  void set_state(const std::map<std::string, std::vector<double>>& state) override {
    number = state.at("number").at(0);
  }
  template <class... Parts>
  static std::string concat(const Parts&... parts) {
    return graft::concat(parts...);
  }
  std::string text;
  double number = 0;
  std::vector<double> scales;
};

}  // namespace

TEST_CASE("training lowers the loss, on held-out rows too") {
  tiny::Setup setup;
  auto c = config();
  c.steps = 40;
  c.optimizer.learning_rate = 5e-2;
  c.eval_interval = 15;
  Trainer trainer(setup.model, setup.adapters, tiny::data(40), tiny::data(7), c);
  const auto before = trainer.evaluate();
  REQUIRE(before);
  CHECK(trainer.run());
  const auto& history = trainer.history();
  REQUIRE(history.steps.size() == 40);
  CHECK(history.steps.back().loss < 0.7 * history.steps.front().loss);
  REQUIRE(history.evaluations.size() == 4);  // before, 15, 30, 40
  CHECK(history.evaluations[1].step == 15);
  CHECK(history.evaluations[3].step == 40);
  CHECK(history.evaluations[3].result.loss < 0.7 * before->loss);
  CHECK(history.evaluations[3].result.accuracy > before->accuracy);
  CHECK(before->perplexity == Approx(std::exp(before->loss)));
  CHECK(history.steps[0].learning_rate == Approx(5e-2 / 3));
  CHECK(history.steps[2].learning_rate == Approx(5e-2));
}

TEST_CASE("steps follow from epochs, rounded up") {
  tiny::Setup setup;
  auto c = config();
  c.steps = 0;
  c.epochs = 2;
  c.accumulation = 2;
  CHECK(Trainer(setup.model, setup.adapters, tiny::data(20), {}, c).steps() == 7);  // 40 rows by 6
}

TEST_CASE("accumulated batches move the parameters as one batch of all their rows does") {
  auto c = config();
  c.steps = 3;
  c.batch_size = 6;
  tiny::Setup whole;
  Trainer(whole.model, whole.adapters, tiny::data(24), {}, c).run();
  c.batch_size = 2;
  c.accumulation = 3;
  tiny::Setup parts;
  Trainer trainer(parts.model, parts.adapters, tiny::data(24), {}, c);
  trainer.run();
  const auto a = tiny::values(whole.adapters), b = tiny::values(parts.adapters);
  REQUIRE(a.size() == b.size());
  float difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    difference = std::max(difference, std::abs(a[i] - b[i]));
  CHECK(difference < 2e-4F);
}

TEST_CASE("procedures learn by what clipping multiplied the gradients") {
  for (const double largest : {0.0, 1e-3, 1e9}) {
    tiny::Setup setup;
    auto c = config();
    c.steps = 3;
    c.max_gradient_norm = largest;
    auto counting = std::make_unique<Counting>();
    const auto& scales = counting->scales;
    setup.adapters.at("default").set_procedure(std::move(counting));
    Trainer trainer(setup.model, setup.adapters, tiny::data(20), {}, c);
    trainer.run();
    REQUIRE(scales.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
      const double norm = trainer.history().steps[i].gradient_norm;
      CHECK(scales[i] == graft::clip_factor(norm, largest));
      CHECK((scales[i] < 1) == (largest == 1e-3));
    }
  }
}

TEST_CASE("results do not depend on the number of threads") {
  auto& pool = graft::ThreadPool::global();
  const int before = pool.threads();
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    pool.set_threads(threads);
    tiny::Setup setup(with_dropout());
    Trainer(setup.model, setup.adapters, tiny::data(20), {}, config()).run();
    results.push_back(tiny::values(setup.adapters));
  }
  pool.set_threads(before);
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}

TEST_CASE("a run that goes on from a checkpoint ends with the bits of an unbroken one") {
  const TemporaryFolder folder;
  auto c = config();
  c.accumulation = 2;
  c.lora_plus_ratio = 4;
  tiny::Setup unbroken(with_dropout());
  Trainer reference(unbroken.model, unbroken.adapters, tiny::data(10), tiny::data(3), c);
  reference.run();

  c.checkpoints = folder.path() / "checkpoints";
  c.checkpoint_interval = 2;
  const auto ends_at = [&](Index last) {
    tiny::Setup setup(with_dropout());
    Trainer trainer(setup.model, setup.adapters, tiny::data(10), tiny::data(3), c);
    const auto all = graft::list_checkpoints(c.checkpoints);
    if (!all.empty()) CHECK(trainer.resume(all.back().second).at("word") == "kept");
    graft::TrainCallbacks callbacks;
    callbacks.note = [] { return graft::io::Json{{"word", "kept"}}; };
    callbacks.stop = [&] { return trainer.step() == last; };
    const bool complete = trainer.run(callbacks);
    CHECK(complete == (last == 12));
    CHECK(trainer.history().steps.size() == static_cast<std::size_t>(last));
    return tiny::values(setup.adapters);
  };
  ends_at(3);  // stops between two intervals: a checkpoint is written for it
  CHECK(graft::list_checkpoints(c.checkpoints).back().first == 3);
  ends_at(9);
  CHECK(graft::list_checkpoints(c.checkpoints).size() == 2);
  CHECK(ends_at(12) == tiny::values(unbroken.adapters));
}

TEST_CASE("a checkpoint of another run is refused") {
  const TemporaryFolder folder;
  auto c = config();
  c.checkpoints = folder.path();
  tiny::Setup setup;
  Trainer trainer(setup.model, setup.adapters, tiny::data(10), {}, c);
  trainer.run({.stop = [] { return true; }});
  const auto checkpoint = graft::list_checkpoints(folder.path()).back().second;
  const auto refused = [&](const TrainConfig& other, int rows, graft::LoRAConfig lora,
                           const char* word) {
    tiny::Setup again(std::move(lora));
    Trainer second(again.model, again.adapters, tiny::data(rows), {}, other);
    CHECK_THROWS_WITH(second.resume(checkpoint), Catch::Contains(word));
  };
  const graft::LoRAConfig same{.rank = 4, .alpha = 8, .target_modules = "all-linear"};
  auto other = c;
  other.seed = 8;
  refused(other, 10, same, "seed");
  other = c;
  other.batch_size = 2;
  refused(other, 10, same, "rows_per_step");
  refused(c, 11, same, "data");
  refused(c, 10, {.rank = 2, .alpha = 8, .target_modules = "all-linear"}, "of another shape");
}

TEST_CASE("procedures and auxiliary losses take part, and their state survives a checkpoint") {
  const TemporaryFolder folder;
  auto c = config();
  c.steps = 3;
  c.checkpoints = folder.path();
  tiny::Setup setup;
  auto& set = setup.adapters.at("default");
  auto owned = std::make_unique<Counting>();
  auto* counting = owned.get();
  set.set_procedure(std::move(owned));
  set.set_loss([](graft::Tape& tape) { return tape.constant(graft::Tensor::full({1}, 0.25F)); });
  Trainer trainer(setup.model, setup.adapters, tiny::data(10), {}, c);
  trainer.run({.stop = [&] { return trainer.step() == 2; }});
  CHECK(counting->text == "b1ga/3 b2ga/3 ");
  CHECK(trainer.history().steps[0].auxiliary == Approx(0.25));

  tiny::Setup again;
  auto fresh = std::make_unique<Counting>();
  auto* second = fresh.get();
  again.adapters.at("default").set_procedure(std::move(fresh));
  Trainer goes_on(again.model, again.adapters, tiny::data(10), {}, c);
  goes_on.resume(graft::list_checkpoints(folder.path()).back().second);
  CHECK(second->number == 2);
  CHECK(goes_on.step() == 2);
  CHECK(tiny::values(again.adapters) == tiny::values(setup.adapters));
}

TEST_CASE("a number that is not finite ends the run before the step and is named") {
  const TemporaryFolder folder;
  auto c = config();
  c.checkpoints = folder.path();
  c.checkpoint_interval = 1;
  tiny::Setup setup;
  Trainer trainer(setup.model, setup.adapters, tiny::data(10), {}, c);
  auto poisoned = setup.adapters.parameters().at(3);
  graft::TrainCallbacks callbacks;
  std::vector<float> before;
  callbacks.on_step = [&](const graft::StepReport& r) {
    if (r.step != 4) return;
    poisoned.value()[0] = std::numeric_limits<float>::quiet_NaN();
    before = tiny::values(setup.adapters);
  };
  std::string key;
  for (const auto& [k, tensor] : setup.adapters.at("default").tensors())
    if (tensor.parameter == poisoned) key = k;
  CHECK_THROWS_WITH(trainer.run(callbacks), Catch::Contains("step 5") && Catch::Contains(key));
  CHECK(graft::list_checkpoints(folder.path()).back().first == 4);
  CHECK(trainer.step() == 4);
  // All but the poisoned number compare equal: the step was not taken.
  const auto after = tiny::values(setup.adapters);
  CHECK(std::equal(after.begin(), after.end(), before.begin(),
                   [](float a, float b) { return a == b || (a != a && b != b); }));
}

TEST_CASE("the trainer refuses what it cannot do") {
  tiny::Setup setup;
  auto c = config();
  CHECK_THROWS_AS(Trainer(setup.model, setup.adapters, {}, {}, c), graft::ValueError);
  c.batch_size = 0;
  CHECK_THROWS_AS(Trainer(setup.model, setup.adapters, tiny::data(4), {}, c), graft::ValueError);
  setup.adapters.activate({});
  CHECK_THROWS_AS(Trainer(setup.model, setup.adapters, tiny::data(4), {}, config()),
                  graft::ValueError);
}

TEST_CASE("the short form trains from start to end") {
  tiny::Setup setup;
  const auto history = graft::train(setup.model, setup.adapters, tiny::data(12), config());
  CHECK(history.steps.size() == 12);
  CHECK(history.steps.back().loss < history.steps.front().loss);
}

TEST_CASE("the trainer's rates with LoRA+ are those of the groups of its parameters") {
  tiny::Setup setup({.rank = 2,
                     .target_modules = {"layers.0.self_attn.q_proj", "embed_tokens"},
                     .use_dora = true});
  auto c = config();
  c.lora_plus_ratio = 4;
  c.lora_plus_embedding_rate = 1e-4;
  c.optimizer.weight_decay = 0.1;
  const auto groups = graft::parameter_groups(setup.adapters, c);
  std::vector<std::string> names[4];
  REQUIRE(groups.size() == 4);
  for (std::size_t g = 0; g < 4; ++g)
    for (const auto& parameter : groups[g].parameters)
      for (const auto& named : graft::named_parameters(setup.adapters.at("default")))
        if (named.parameter == parameter) names[g].push_back(named.name);
  const std::string head = "base_model.model.model.", q = head + "layers.0.self_attn.q_proj.lora_",
                    embedding = head + "embed_tokens.lora_";
  CHECK(names[0] == std::vector{q + "A.weight"});
  CHECK_THAT(names[1], Catch::UnorderedEquals(
                           std::vector{embedding + "embedding_A", embedding + "embedding_B"}));
  CHECK_THAT(names[2], Catch::UnorderedEquals(std::vector{embedding + "magnitude_vector",
                                                          q + "B.weight", q + "magnitude_vector"}));
  CHECK(names[3].empty());
  CHECK(groups[1].learning_rate_ratio == Approx(1e-2));
  CHECK(groups[2].learning_rate_ratio == 4);
  for (std::size_t g = 0; g < 3; ++g) CHECK(groups[g].weight_decay == 0.1);
  c.lora_plus_ratio = 1;
  const auto one = graft::parameter_groups(setup.adapters, c);
  REQUIRE(one.size() == 1);
  CHECK(one[0].parameters.size() == 6);
  CHECK(one[0].learning_rate_ratio == 1);
}
