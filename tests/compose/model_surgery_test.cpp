#include "graft/compose/model_surgery.hpp"

#include <catch2/catch.hpp>

#include "graft/autograd/gradient_check.hpp"

using graft::Index;
using Wide = graft::BasicTensor<double>;
using Parameter = graft::BasicParameter<double>;

TEST_CASE("MOS: an adapter is pulled to the mean of the earlier ones") {
  const Parameter a(Wide::from({1, 3}, {2})), b(Wide::from({0}, {1}));
  graft::pull_to_mean<double>({a, b}, {}, 0.5);
  graft::pull_to_mean<double>({a, b}, {{Wide::ones({2}), Wide::ones({1})}}, 0);
  CHECK(a.value()[1] == 3);
  graft::pull_to_mean<double>(
      {a, b}, {{Wide::full({2}, 2), Wide::full({1}, 4)}, {Wide::full({2}, 4), Wide::ones({1})}},
      0.5);
  CHECK(a.value()[0] == 2);
  CHECK(a.value()[1] == 3);
  CHECK(b.value()[0] == 1.25);
  CHECK_THROWS_AS(graft::pull_to_mean<double>({a, b}, {{Wide::ones({2})}}), graft::ValueError);
  CHECK_THROWS_AS(graft::pull_to_mean<double>({a}, {{Wide::ones({3})}}), graft::ShapeError);
}

TEST_CASE("MOS: retrieval stops when the adapter stays, and in any case") {
  const std::vector<Index> task_of_class{0, 0, 1, 1, 2};
  const std::vector<Index> settles{3, 4, 2};  // class that each adapter predicts
  const auto predict = [&](Index adapter) { return settles[static_cast<std::size_t>(adapter)]; };
  auto found = graft::retrieve_adapter(0, task_of_class, predict);
  CHECK(found.adapter == 2);
  CHECK(found.rounds == 4);  // 1, 2, 1, 2, …: two adapters send the sample to each other
  found = graft::retrieve_adapter(0, task_of_class, [](Index) { return 3; });
  CHECK(found.adapter == 1);
  CHECK(found.rounds == 2);
  found = graft::retrieve_adapter(2, task_of_class, [](Index) { return 4; });
  CHECK(found.rounds == 1);
  CHECK_THROWS_AS(graft::retrieve_adapter(0, task_of_class, [](Index) { return 5; }),
                  graft::ValueError);
}

TEST_CASE("MOS: orthogonal features and means have the smallest loss; its gradient") {
  const auto loss_of = [](const Wide& f) {
    graft::BasicTape<double> tape;
    return graft::orthogonality_loss(tape.constant(f), Wide::from({0, 0, 3}, {1, 3})).item();
  };
  CHECK(loss_of(Wide::from({2, 0, 0, 0, 1, 0}, {2, 3})) ==
        Approx(std::log(1 + 2 * std::exp(-1 / 0.8))));
  CHECK(loss_of(Wide::from({2, 0, 0, 1, 1, 0}, {2, 3})) >
        loss_of(Wide::from({2, 0, 0, 0, 1, 0}, {2, 3})));
  const Parameter f(Wide::from({0.3, -1, 2, 0.7, 0.2, -0.4}, {2, 3}));
  const auto error = graft::gradient_check(
      [&](graft::BasicTape<double>& tape) {
        return graft::orthogonality_loss(tape.parameter(f), Wide::from({1, 2, -1}, {1, 3}));
      },
      {f});
  CHECK(error.relative_error < 1e-7);
  const auto first = Wide::from({1, 0}, {1, 2});
  const auto score = graft::surgery_ensemble(Wide::zeros({1, 2}), first, 3);
  CHECK(score[0] == Approx(0.5 + 1 / (1 + std::exp(-3.0))));
}

TEST_CASE("MOS: normalised logits do not see how long the logits are, and have a gradient") {
  const std::vector<Index> sizes{2, 1};
  const auto of = [&](const Wide& logits) {
    graft::BasicTape<double> tape;
    return graft::normalised_logits(tape.constant(logits), std::span(sizes), 0.5).value();
  };
  const auto one = of(Wide::from({3, 4, -1}, {1, 3}));  // lengths 5 and 1
  CHECK(one[0] == Approx(3 / 3.0 / 0.5));
  CHECK(one[2] == Approx(-1 / 3.0 / 0.5));
  CHECK(of(Wide::from({30, 40, -10}, {1, 3}))[1] == Approx(one[1]));
  const Parameter o(Wide::from({0.3, -1, 2, 0.7, 0.2, -0.4}, {2, 3}));
  const auto weights = Wide::from({1, 2, -1, 0.5, 3, 1}, {2, 3});
  const auto error = graft::gradient_check(
      [&](graft::BasicTape<double>& tape) {
        return sum(mul(graft::normalised_logits(tape.parameter(o), std::span(sizes)),
                       tape.constant(weights)));
      },
      {o});
  CHECK(error.relative_error < 1e-7);
  CHECK_THROWS_AS(of(Wide::ones({1, 4})), graft::ShapeError);
  graft::BasicTape<double> tape;
  const auto zeros = tape.leaf(Wide::from({0, 0, 2}, {1, 3}));  // a task without a length
  tape.backward(sum(graft::normalised_logits(zeros, std::span(sizes))));
  for (const double g : zeros.grad()) CHECK(std::isfinite(g));
  CHECK_THROWS_AS(graft::normalised_logits(tape.constant(Wide::ones({1, 3})), std::span(sizes), 0),
                  graft::ValueError);
}
