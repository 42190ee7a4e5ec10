#include "graft/train/entity_score.hpp"

#include <catch2/catch.hpp>

namespace {
using Texts = std::vector<std::vector<std::string>>;
}

TEST_CASE("A span counts only if its bounds and its kind are right") {
  const Texts truth{{"B-PER", "I-PER", "O", "B-LOC", "O"}, {"O", "B-ORG", "B-ORG"}};
  const Texts found{{"B-PER", "I-PER", "O", "B-PER", "O"}, {"O", "B-ORG", "I-ORG"}};
  const auto score = graft::entity_score(truth, found);
  CHECK(score.truth == 4);
  CHECK(score.predicted == 3);
  CHECK(score.right == 1);
  CHECK(score.precision() == Approx(1.0 / 3));
  CHECK(score.recall() == Approx(1.0 / 4));
  CHECK(score.f1() == Approx(2.0 / 7));
  CHECK(graft::entity_score(truth, truth).f1() == 1);
}

TEST_CASE("An inner tag after another kind begins a span, and E and S close one") {
  const Texts inner{{"I-A", "I-A", "I-B", "O", "I-B"}};
  CHECK(graft::entity_score(inner, {{"B-A", "I-A", "B-B", "O", "B-B"}}).right == 3);
  const Texts bioes{{"S-A", "B-A", "E-A", "I-A"}};
  CHECK(graft::entity_score(bioes, {{"B-A", "B-A", "I-A", "B-A"}}).right == 3);
}

TEST_CASE("Tags without marks of spans are told apart") {
  CHECK(graft::marks_entities({"O", "B-X", "I-X"}));
  CHECK_FALSE(graft::marks_entities({"NOUN", "VERB"}));
  CHECK_FALSE(graft::marks_entities({"O"}));
  CHECK_FALSE(graft::marks_entities({"O", "B-"}));
}

TEST_CASE("Predictions of another shape are refused") {
  CHECK_THROWS_AS(graft::entity_score({{"O"}}, {}), graft::ValueError);
  CHECK_THROWS_AS(graft::entity_score({{"O"}}, {{"O", "O"}}), graft::ValueError);
  CHECK(graft::entity_score({}, {}).f1() == 0);
}
