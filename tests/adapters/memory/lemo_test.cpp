#include "graft/adapters/memory/lemo.hpp"

#include "adapters/memory/tiny_model.hpp"

using graft::Index;
using graft::LeMoConfig;

namespace {

using Setup = memory::OnLlama<double>;
using Stack = graft::LeMoStack<double>;

LeMoConfig small() {
  LeMoConfig config;
  config.block_size = 2;
  config.rank = 2;
  config.target_modules = {"q_proj", "v_proj", "down_proj"};
  return config;
}
/// Keeps the blocks of tokens whose score in `scores` [batch · blocks] is one.
void keep(Setup& setup, std::vector<double> scores) {
  auto& stack = setup.part<Stack>();
  for (auto* list : {&stack.attention_thresholds(), &stack.mlp_thresholds()})
    list->assign(list->size(), 0.5);
  stack.set_scorer([scores](Index, graft::HiddenRole, const graft::BasicTensor<double>&, Index) {
    return scores;
  });
}

}  // namespace

TEST_CASE("Tokens that are left out are not there for the others") {
  Setup setup(small());
  memory::randomize(setup.set());
  const std::vector<std::int32_t> text{4, 8, 15, 16, 2, 3, 7};
  const auto dense = setup.logits(Setup::batch(text), true);
  // Distances count, not positions: without its first tokens the text is the rest of it.
  keep(setup, {0, 1, 1, 0});  // the last block stays whatever its score
  const auto found = setup.logits(Setup::batch(text), true);
  const auto expected = setup.logits(Setup::batch({15, 16, 2, 3, 7}));
  const Index width = found.cols();
  for (Index i = 0; i < expected.size(); ++i) CHECK(found[2 * width + i] == Approx(expected[i]));
  // Those left out go by all blocks.
  const auto row = [&](Index t) {
    graft::BasicTape<double> tape({.gradients = false});
    const auto x = setup.model.embed_tokens(
        tape, std::vector<std::int32_t>{text[static_cast<std::size_t>(t)]});
    return setup.model.head(setup.model.norm(x)).value();
  };
  for (const Index t : {0, 1})
    for (Index j = 0; j < width; ++j) CHECK(found[t * width + j] == Approx(row(t)[j]));
  // Outside of training all tokens run.
  CHECK(checks::relative_error(setup.logits(Setup::batch(text)), dense) == 0);
  keep(setup, {1, 1, 1, 1});
  CHECK(checks::relative_error(setup.logits(Setup::batch(text), true), dense) < 1e-12);
}

TEST_CASE("Rows that keep different numbers of tokens train together") {
  Setup setup(small());
  memory::randomize(setup.set());
  keep(setup, {0, 0, 0, 1});  // of the first row the block with its last real token
  CHECK(setup.gradient_error() < 1e-5);
  const auto& seen = setup.part<Stack>().seen_by_attention(0);
  CHECK(seen.keep == std::vector<unsigned char>{0, 1, 0, 1});
  keep(setup, {1, 1, 0, 1});
  CHECK(setup.gradient_error() < 1e-5);
}

TEST_CASE("Scores are sums over queries and means of activations") {
  Setup setup(small());
  memory::randomize(setup.set());
  auto& stack = setup.part<Stack>();
  for (auto* list : {&stack.attention_thresholds(), &stack.mlp_thresholds()})
    list->assign(list->size(), 0);
  const std::vector<std::int32_t> text{4, 8, 15};
  (void)setup.logits(Setup::batch(text), true);
  const auto score = stack.seen_by_attention(0).score;
  REQUIRE(score.size() == 2);
  // The first query sees itself alone, so its block has the largest probability there is once, and
  // no more than that in the second block of queries.
  CHECK(score[0] > 1);
  CHECK(score[0] < 2);
  CHECK(score[1] > 0);
  CHECK(score[1] < 1);
  const double mean = (score[0] + score[1]) / 2;
  stack.thresholds_from_scores();
  CHECK(stack.attention_thresholds()[0] == Approx(mean));
  (void)setup.logits(Setup::batch(text), true);
  CHECK(stack.seen_by_attention(0).keep == std::vector<unsigned char>{1, 1});
  // A quality that grows with the first threshold alone.
  stack.refine([&] { return 3 * stack.attention_thresholds()[0]; }, 0.1, 0.01);
  CHECK(stack.attention_thresholds()[0] == Approx(mean + 0.3));
}

TEST_CASE("LeMo refuses thresholds that do not fit") {
  auto config = small();
  config.attention_thresholds = {0.5};
  CHECK_THROWS_WITH(Setup(config), Catch::Contains("1 attention_thresholds for 3 layers"));
  config = small();
  config.block_size = 0;
  CHECK_THROWS_WITH(Setup(config), Catch::Contains("block_size 0"));
}
