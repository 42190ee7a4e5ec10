#include "graft/adapters/prompts/pvp.hpp"

#include "adapters/prompts/tiny_vit.hpp"
#include "graft/optim/adamw.hpp"

TEST_CASE("PVP: the second stage goes on from the prompts of the first with new moments") {
  prompts::ImageSetup<double> setup(graft::PvpConfig{.num_tokens = 2});
  CHECK(setup.set().trainable_elements() == prompts::kLayers * 2 * prompts::kWidth);
  const auto head = [](unsigned seed, graft::Index classes) {
    return graft::BasicParameter<double>(
        checks::random_tensor<double>({classes, prompts::kWidth}, seed));
  };
  const auto train = [&](const graft::BasicParameter<double>& w) {
    return graft::pvp_stage<double>(
        setup.set().parameters(), {w}, 4,
        [](const auto& all) {
          return graft::BasicAdamW<double>(all, {.learning_rate = 1e-2, .weight_decay = 0});
        },
        [&](graft::BasicTape<double>& tape) {
          const auto batch = setup.batch();
          const auto h = setup.model.hidden(tape, batch);
          const auto token = reshape(slice(h, 1, 0, 1), {2, prompts::kWidth});
          return cross_entropy(
              matmul(token, tape.parameter(w), graft::Transpose::no, graft::Transpose::yes),
              batch.labels);
        });
  };
  const auto source = train(head(1, 5));
  REQUIRE(source.size() == 5);
  CHECK(source.back() < source.front());
  const auto learned = setup.set().parameters()[0].value().clone();
  const auto first = train(head(2, 3));
  setup.set().parameters()[0].assign(learned.clone());
  CHECK(first.back() < first.front());
  CHECK_THROWS_AS(setup.adapters.add("q", graft::PvpConfig{.source_classes = 0}),
                  graft::ValueError);
}
