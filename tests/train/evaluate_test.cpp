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
