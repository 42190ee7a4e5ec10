#include "graft/adapters/prompts/e2vpt.hpp"

#include "adapters/prompts/tiny_vit.hpp"

using graft::Index;
using graft::PromptMasks;
using prompts::kLayers;
using prompts::kWidth;

namespace {

graft::E2vptConfig e2vpt_config(bool shared) {
  return {
      .num_tokens = 2, .num_key_value_tokens = 3, .num_segments = 6, .shared_key_value = shared};
}

template <class T>
graft::MaskedPrompts<T>& masked(graft::AdapterSet<T>& set) {
  for (const auto& placed : set.parts())
    if (auto* part = dynamic_cast<graft::MaskedPrompts<T>*>(placed.part.get())) return *part;
  throw graft::ValueError("no masked prompts");
}

}  // namespace

TEST_CASE("E2VPT: counts and gradients") {
  for (const bool shared : {true, false}) {
    prompts::ImageSetup<double> setup(e2vpt_config(shared));
    CHECK(setup.set().trainable_elements() ==
          kLayers * (2 * kWidth + (shared ? 1 : 2) * 3 * kWidth));
    CHECK(setup.gradient_error() < 1e-6);
  }
  CHECK_THROWS_WITH(prompts::ImageSetup<float>(graft::E2vptConfig{.num_segments = 5}),
                    Catch::Contains("does not divide"));
}

TEST_CASE("Scores of segments are the gradients of their masks; pruned entries have none") {
  prompts::ImageSetup<double> setup(e2vpt_config(true));
  setup.randomize();
  auto& part = masked(setup.set());
  const auto loss = [&] {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    return setup.model.loss(tape, setup.batch()).item();
  };
  const auto backward = [&] {
    for (const auto& p : setup.set().parameters()) p.zero_grad();
    graft::BasicTape<double> tape({.training = false});
    tape.backward(setup.model.loss(tape, setup.batch()));
  };
  backward();
  graft::PromptScores<double> scores;
  part.add_scores(scores);
  PromptMasks<double> masks{graft::BasicTensor<double>::full({2}, 1.0),
                            graft::BasicTensor<double>::full({2, 6}, 1.0)};
  const double h = 1e-5;
  masks.segment(1, 4) = 1 + h;
  part.set_masks(masks);
  const double up = loss();
  masks.segment(1, 4) = 1 - h;
  part.set_masks(masks);
  const double slope = (up - loss()) / (2 * h);
  CHECK(scores.segment()(1, 4) == Approx(std::abs(slope)).epsilon(1e-6));

  masks.segment(1, 4) = 0;
  part.set_masks(masks);
  backward();
  const auto p = setup.set().parameters()[setup.set().parameters().size() - 2];
  REQUIRE(p.shape() == graft::Shape{2, kWidth});
  CHECK(p.grad()(1, 8) == 0);
  CHECK(p.grad()(1, 9) == 0);
  CHECK(p.grad()(1, 7) != 0);
}

TEST_CASE("Pruning keeps a token and four segments; rewinding gives the first values") {
  const auto token = checks::random_tensor<float>({5}, 1),
             segment = checks::random_tensor<float>({5, 6}, 2);
  const auto all = graft::prune_prompts(token, segment, 100);
  CHECK(std::count(all.token.begin(), all.token.end(), 1.0F) == 1);
  const auto none = graft::prune_prompts(token, segment, 0);
  CHECK(std::count(none.segment.begin(), none.segment.end(), 1.0F) == 30);
  const auto some = graft::prune_prompts(token, segment, 40);
  CHECK(std::count(some.token.begin(), some.token.end(), 1.0F) == 3);
  CHECK(std::count(some.segment.begin(), some.segment.end(), 0.0F) == 2 * 6 + 3 * 2);

  prompts::ImageSetup<float> setup(e2vpt_config(true));
  const auto before = setup.logits();
  auto& part = masked(setup.set());
  for (const auto& t : part.tensors())
    if (t.parameter.trainable())
      t.parameter.assign(checks::random_tensor<float>(t.parameter.shape(), 3));
  CHECK(checks::relative_error(setup.logits(), before) > 1e-3);
  part.rewind();
  CHECK(checks::relative_error(setup.logits(), before) == 0);
}
