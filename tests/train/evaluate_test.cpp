#include "graft/train/evaluate.hpp"

#include <catch2/catch.hpp>

#include "train/tiny_model.hpp"

using graft::Index;

TEST_CASE("the mean over all tokens does not depend on the batch size") {
  tiny::Setup setup;
  const auto data = tiny::data(11);
  const auto one = graft::evaluate(setup.model, data, 1);
  const auto four = graft::evaluate(setup.model, data, 4);
  REQUIRE((one && four));
  Index expected = 0;
  for (const auto& e : tiny::examples(11))
    expected += e.length() - 1;  // nothing predicts the first token
  CHECK(one->count == expected);
  CHECK(four->count == expected);
  CHECK(four->loss == Approx(one->loss).epsilon(1e-5));
  CHECK(four->accuracy == one->accuracy);
  CHECK(one->perplexity == Approx(std::exp(one->loss)));
}

TEST_CASE("the loss of one batch is that of the model") {
  tiny::Setup setup;
  const auto data = tiny::data(5);
  const std::vector<Index> rows{0, 1, 2, 3, 4};
  graft::Tape tape;
  const double loss = static_cast<double>(setup.model.loss(tape, data.batch(rows)).item());
  CHECK(graft::evaluate(setup.model, data, 5)->loss == Approx(loss).epsilon(1e-5));
}

TEST_CASE("an evaluation that is stopped has no result") {
  tiny::Setup setup;
  int calls = 0;
  CHECK_FALSE(graft::evaluate(setup.model, tiny::data(9), 2, [&] { return ++calls == 3; }));
  CHECK_THROWS_AS(graft::evaluate(setup.model, tiny::data(9), 0), graft::ValueError);
}

TEST_CASE("rows of a subset are those that were picked, and content shows in the fingerprint") {
  const auto all = tiny::data(9);
  const auto part = graft::subset(all, {8, 2});
  CHECK(part.rows == 2);
  const std::vector<Index> first{0}, ninth{8};
  CHECK(part.batch(first).ids == all.batch(ninth).ids);
  CHECK(part.fingerprint != graft::subset(all, {2, 8}).fingerprint);
  CHECK(tiny::data(9).fingerprint == all.fingerprint);
  CHECK(tiny::data(8).fingerprint != all.fingerprint);
  CHECK_THROWS_AS(graft::subset(all, {9}), graft::ValueError);
}

namespace {

/// Says class (id mod 3) of every token, behind `extra` virtual ones.
class TokenClasses final : public graft::models::Model {
 public:
  explicit TokenClasses(Index extra) : extra_(extra) {}
  graft::Var logits(graft::Tape& tape, const graft::models::Batch& batch) const override {
    const Index tokens = extra_ + batch.seq_len;
    auto y = graft::Tensor::zeros({batch.batch, tokens, 3});
    for (Index b = 0; b < batch.batch; ++b)
      for (Index t = 0; t < batch.seq_len; ++t) {
        const auto id = batch.ids[static_cast<std::size_t>(b * batch.seq_len + t)];
        y[(b * tokens + extra_ + t) * 3 + id % 3] = 1;
      }
    return tape.constant(y);
  }
  graft::Var loss(graft::Tape& tape, const graft::models::Batch& batch) const override {
    return loss_of(logits(tape, batch), batch);
  }
  graft::Var loss_of(const graft::Var& logits, const graft::models::Batch&) const override {
    return logits.tape().constant(graft::Tensor::zeros({1}));
  }

 private:
  Index extra_;
};

}  // namespace

TEST_CASE("of a model with an output a token, the tokens with a label are judged") {
  std::vector<graft::text::Example> examples(3);
  examples[0] = {{1, 2, 3}, {}, {-100, 2, 0}};
  examples[1] = {{4, 5}, {}, {1, -100}};
  examples[2] = {{6, 7, 8, 9}, {}, {1, 1, 1, -100}};
  const auto data = graft::text_dataset<float>(examples, 0);
  for (const Index extra : {0, 2}) {
    const TokenClasses model(extra);
    const auto e = graft::evaluate(model, data, 2);
    CHECK(e->count == 6);
    CHECK(e->accuracy == Approx(4.0 / 6));  // wrong: 6 and 8 of the last text
    const auto y = graft::predict(model, data, 2);
    CHECK(graft::likeliest(*y) == std::vector<Index>{2, 0, 1, 0, 1, 2});
  }
}

TEST_CASE("of a model that predicts tokens, those that are to be predicted have outputs") {
  tiny::Setup setup;
  const auto data = tiny::data(5);
  const auto e = graft::evaluate(setup.model, data, 2);
  const auto y = graft::predict(setup.model, data, 2);
  REQUIRE(y->rows() == e->count);
  // Likeliest tokens are right as often as the evaluation says.
  Index row = 0, right = 0;
  const auto best = graft::likeliest(*y);
  for (const auto& example : tiny::examples(5))
    for (std::size_t t = 1; t < example.ids.size(); ++t)
      right += best[static_cast<std::size_t>(row++)] == example.labels[t];
  CHECK(row == e->count);
  CHECK(e->accuracy == Approx(static_cast<double>(right) / static_cast<double>(row)));
}
