#include "graft/adapters/prompts/cones.hpp"

#include "adapters/method_checks.hpp"

TEST_CASE("ConES: only the concepts learn, in a classifier and in a cross-attention") {
  using checks::random_tensor;
  graft::StandaloneInit<double> init(1);
  const graft::BasicConceptEmbeddings<double> concepts({.num_concepts = 4, .temperature = 3}, 5,
                                                       init.context());
  CHECK(graft::trainable_elements(concepts.tensors()) == 20);
  checks::randomize(concepts, 1);
  const auto c = concepts.tensors()[0].parameter;
  const graft::BasicParameter<double> x(random_tensor<double>({2, 3, 6}, 2));
  const auto weights = random_tensor<double>({2, 3, 4}, 3),
             wide = random_tensor<double>({2, 3, 6}, 4);
  const auto classify = graft::gradient_check(
      [&](graft::BasicTape<double>& tape) {
        return sum(mul(concepts.classify(tape.parameter(x), random_tensor<double>({5, 6}, 5)),
                       tape.constant(weights)));
      },
      {x, c});
  CHECK(classify.relative_error < 1e-7);
  const auto attend = graft::gradient_check(
      [&](graft::BasicTape<double>& tape) {
        return sum(
            mul(concepts.attend(tape.parameter(x), random_tensor<double>({7, 6}, 6),
                                random_tensor<double>({7, 5}, 7), random_tensor<double>({7, 5}, 8),
                                random_tensor<double>({6, 7}, 9)),
                tape.constant(wide)));
      },
      {x, c});
  CHECK(attend.relative_error < 1e-7);
}

TEST_CASE("ConES starts from what a text encoder gave") {
  const auto start = checks::random_tensor<float>({3, 5}, 1);
  const graft::ConceptEmbeddings concepts({.num_concepts = 3}, start);
  graft::Tape tape;
  CHECK(checks::relative_error(concepts.embeddings(tape).value(), start) == 0);
  CHECK_THROWS_AS(graft::ConceptEmbeddings({.num_concepts = 2}, start), graft::ShapeError);
  CHECK_THROWS_WITH(graft::ConceptEmbeddings({.num_concepts = 3, .consumer = "detector"}, start),
                    Catch::Contains("detector"));
}
