#include "graft/compose/split_training.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/autograd/ops/matmul.hpp"

using checks::random_tensor;
using graft::Index;
using Wide = graft::BasicTensor<double>;
using Tape = graft::BasicTape<double>;
using Var = graft::BasicVar<double>;

TEST_CASE("A model in three parts has the loss and gradients of the whole") {
  const auto x = random_tensor<double>({5, 4}, 1), first = random_tensor<double>({4, 3}, 2),
             middle = random_tensor<double>({3, 3}, 3);
  const graft::BasicParameter<double> prompt(random_tensor<double>({2, 4}, 4)),
      tail(random_tensor<double>({3, 2}, 5));
  const std::vector<std::int64_t> labels{0, 1, 1, 0, 1, 0, 1};
  const auto head = [&](Tape& tape) {
    return tanh(matmul(concat_along(0, std::vector<Var>{tape.parameter(prompt), tape.constant(x)}),
                       tape.constant(first)));
  };
  const auto body = [&](const Var& h) { return tanh(matmul(h, h.tape().constant(middle))); };
  const auto loss = [&](const Var& z) {
    return cross_entropy(matmul(z, z.tape().parameter(tail)), labels);
  };
  Tape tape;
  const auto whole = loss(body(head(tape)));
  tape.backward(whole);
  const auto dp = prompt.grad(), dt = tail.grad();
  for (const auto& p : {prompt, tail}) p.zero_grad();
  graft::SplitServer<double> server(body);
  for (int round = 0; round < 2; ++round) {
    for (const auto& p : {prompt, tail}) p.zero_grad();
    const auto step = graft::split_step(server, head, loss);
    CHECK(step.loss == whole.item());
    CHECK(step.sent == 2 * 21);
    CHECK(step.received == 2 * 21);
    CHECK(std::equal(dp.begin(), dp.end(), prompt.grad().begin()));
    CHECK(std::equal(dt.begin(), dt.end(), tail.grad().begin()));
  }
  // Nothing to learn in front: no gradients travel.
  prompt.set_trainable(false);
  CHECK(graft::split_step(server, head, loss).sent == 21);
  graft::SplitServer<double> idle(body);
  CHECK_THROWS_AS(idle.backward(x), graft::ValueError);
}

TEST_CASE("The hardest samples are kept, all of them without pruning") {
  const auto logits = Wide::from({9, 0, 0, 9, 1, 1, 0, 9}, {4, 2});
  const std::vector<std::int64_t> labels{0, 0, 0, 1};
  const auto scores = graft::el2n_scores(logits, labels);
  CHECK(scores[1] == Approx(std::sqrt(2.0)).epsilon(1e-3));
  CHECK(scores[2] == Approx(std::sqrt(0.5)));
  CHECK(graft::hardest_samples(scores, 0.5) == std::vector<Index>{1, 2});
  CHECK(graft::hardest_samples(scores, 0.3) == std::vector<Index>{0, 1, 2});  // 0 and 3 are equal
  CHECK(graft::hardest_samples(scores, 0).size() == 4);
  CHECK(graft::hardest_samples(scores, 1).empty());
  CHECK_THROWS_AS(graft::hardest_samples(scores, 1.5), graft::ValueError);
  const std::vector<std::int64_t> wrong{0, 0, 0, 2};
  CHECK_THROWS_AS(graft::el2n_scores(logits, wrong), graft::ValueError);
}
