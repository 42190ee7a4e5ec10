#include "graft/adapters/prompts/cpt.hpp"

#include "adapters/prompts/tiny_llama.hpp"

namespace {

graft::CptConfig cpt_config() {
  graft::CptConfig c;
  c.cpt_token_ids = {5, 17, 9, 3, 4, 8};
  c.cpt_tokens_type_mask = {1, 2, 3, 4, 6, 8};
  c.opt_weighted_loss_type = "decay";
  c.opt_loss_decay_factor = 0.5;
  return c;
}

}  // namespace

TEST_CASE("CPT starts as its examples in front of the text") {
  prompts::Setup<double> setup(cpt_config());
  CHECK(setup.set().trainable_elements() == 6 * prompts::kWidth);
  const auto with = setup.logits({7, 2});
  CHECK(setup.expect_same_after_saving() == std::vector<std::string>{"prompt_embeddings"});
  setup.adapters.activate({});
  CHECK(checks::relative_error(with, setup.logits({5, 17, 9, 3, 4, 8, 7, 2})) < 1e-12);
}

TEST_CASE("CPT counts the outputs of the examples, less the further back they are") {
  prompts::Setup<double> setup(cpt_config());
  std::vector<double> weights;
  const auto labels = setup.model.predicted_tokens(setup.batch(), weights);
  REQUIRE(labels.size() == 20);
  // Token 3 (the first output) is predicted at position 2, token 8 at 4; then come the labels.
  CHECK(std::vector<std::int64_t>(labels.begin(), labels.begin() + 10) ==
        std::vector<std::int64_t>{-100, -100, 3, -100, 8, 1, 5, 9, -100, -100});
  CHECK(weights[2] == 0.25);
  CHECK(weights[4] == 0.5);
  CHECK(weights[5] == 1);
  CHECK(labels[15] == -100);
  CHECK(labels[16] == 7);
}

TEST_CASE("Changes of CPT stay within their limits, and outputs do not learn") {
  prompts::Setup<double> setup(cpt_config());
  setup.randomize();
  setup.set().procedure()->before_step({});
  const auto delta = setup.set().parameters().at(0);
  const double limit = 0.1 * std::sqrt(12.0 / 2048);
  for (graft::Index i = 0; i < 6; ++i) {
    double norm = 0;
    for (graft::Index j = 0; j < 12; ++j) norm += delta.value()(i, j) * delta.value()(i, j);
    CHECK(std::sqrt(norm) == Approx(i == 3 || i == 5 ? 1e-10 : limit));
  }
  graft::BasicTape<double> tape;
  tape.backward(setup.model.loss(tape, setup.batch()));
  double learns = 0, stays = 0;
  for (graft::Index j = 0; j < 12; ++j) {
    learns += std::abs(delta.grad()(0, j));
    stays += std::abs(delta.grad()(3, j)) + std::abs(delta.grad()(5, j));
  }
  CHECK(learns > 0);
  CHECK(stays == 0);
}

TEST_CASE("Inside of its limits the gradient of CPT is that of the loss") {
  auto c = cpt_config();
  c.cpt_tokens_type_mask = {1, 2, 3, 1, 2, 4};
  c.opt_projection_epsilon = c.opt_projection_format_epsilon = 1000;
  prompts::Setup<double> setup(c);
  setup.randomize();
  const auto delta = setup.set().parameters().at(0);
  for (graft::Index j = 0; j < 12; ++j) delta.value()(5, j) = 0;  // an output
  delta.zero_grad();
  graft::BasicTape<double> tape;
  tape.backward(setup.model.loss(tape, setup.batch()));
  for (const graft::Index at : {0, 13, 30, 59}) {
    const double old = delta.value()[at], step = 1e-5;
    delta.value()[at] = old + step;
    const double up = setup.loss();
    delta.value()[at] = old - step;
    const double down = setup.loss();
    delta.value()[at] = old;
    CHECK(delta.grad()[at] == Approx((up - down) / (2 * step)).epsilon(1e-5).margin(1e-8));
  }
}

TEST_CASE("CPT says why nothing is left to predict") {
  auto c = cpt_config();
  c.cpt_token_ids = {5, 17};
  c.cpt_tokens_type_mask = {1, 2};
  prompts::Setup<double> setup(c);
  CHECK_THROWS_WITH(setup.loss(), Catch::Contains("the largest type in cpt_tokens_type_mask is 2"));
}

TEST_CASE("CPT refuses lists of different lengths") {
  prompts::Setup<double> setup;
  auto c = cpt_config();
  c.cpt_mask = {1};
  CHECK_THROWS_WITH(setup.adapters.add("p", c), Catch::Contains("a mask of 1"));
}
