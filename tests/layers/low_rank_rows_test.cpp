#include "graft/layers/low_rank_rows.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/autograd/ops/reduce.hpp"
#include "graft/layers/dense_linear.hpp"

using checks::random_tensor;
using graft::Index;
using Tensor = graft::BasicTensor<double>;
using Tape = graft::BasicTape<double>;
using Parameter = graft::BasicParameter<double>;

TEST_CASE("Runs of rows get their own low-rank terms, or none, in one product") {
  const graft::BasicAnyLinear<double> base{graft::BasicDenseLinear<double>(
      random_tensor<double>({5, 7}, 1), random_tensor<double>({5}, 2))};
  const Parameter x(random_tensor<double>({9, 7}, 3));
  const std::vector<graft::LowRankTerm<double>> terms{
      {Parameter(random_tensor<double>({2, 7}, 4)), Parameter(random_tensor<double>({5, 2}, 5)),
       0.5},
      {Parameter(random_tensor<double>({3, 7}, 6)), Parameter(random_tensor<double>({5, 3}, 7)),
       -2.0}};
  const std::vector<graft::LowRankRun> runs{{1, 0, 2}, {-1, 2, 1}, {0, 3, 4}, {1, 7, 2}};
  Tape tape({.gradients = false});
  const auto y = linear_low_rank_rows(base, tape.parameter(x), terms, runs).value();
  for (const auto& run : runs) {
    const auto rows = tape.constant(x.value().slice_rows(run.first, run.count));
    auto expected = linear(base, rows);
    if (run.term >= 0) {
      const auto& t = terms[static_cast<std::size_t>(run.term)];
      expected = graft::linear_low_rank(base, rows, rows, tape.parameter(t.a), tape.parameter(t.b),
                                        t.scaling);
    }
    for (Index i = 0; i < expected.value().size(); ++i)
      CHECK(y[run.first * 5 + i] == Approx(expected.value()[i]).margin(1e-12));
  }
  const auto weights = random_tensor<double>({9, 5}, 8);
  const auto check = graft::gradient_check(
      [&](Tape& t) {
        return sum(
            mul(linear_low_rank_rows(base, t.parameter(x), terms, runs), t.constant(weights)));
      },
      {x, terms[0].a, terms[0].b, terms[1].a, terms[1].b});
  CHECK(check.relative_error < 1e-8);
}

TEST_CASE("Factors that do not fit the layer are refused") {
  const graft::BasicAnyLinear<double> base{
      graft::BasicDenseLinear<double>(random_tensor<double>({5, 7}, 1))};
  Tape tape;
  const auto x = tape.constant(random_tensor<double>({2, 7}, 3));
  const std::vector<graft::LowRankTerm<double>> terms{
      {Parameter(random_tensor<double>({2, 6}, 4)), Parameter(random_tensor<double>({5, 2}, 5))}};
  CHECK_THROWS_AS(linear_low_rank_rows(base, x, terms, {{0, 0, 2}}), graft::ShapeError);
}

TEST_CASE("Rows by the numbers of their terms: runs, and no others than there are") {
  const std::vector<std::int64_t> ids{1, 1, -1, -3, 0, 1};
  const auto runs = graft::low_rank_runs(ids);
  REQUIRE(runs.size() == 4);
  CHECK(runs[0].count == 2);
  CHECK(runs[1].term == -1);
  CHECK(runs[1].count == 2);
  CHECK(runs[3].first == 5);
  CHECK(graft::low_rank_runs({}).empty());
  const graft::BasicAnyLinear<double> base{
      graft::BasicDenseLinear<double>(random_tensor<double>({3, 2}, 1), {})};
  Tape tape;
  const auto x = tape.constant(random_tensor<double>({6, 2}, 2));
  const std::vector<graft::LowRankTerm<double>> one{{Parameter(random_tensor<double>({1, 2}, 3)),
                                                     Parameter(random_tensor<double>({3, 1}, 4)),
                                                     1}};
  CHECK_THROWS_AS(linear_low_rank_rows(base, x, one, runs), graft::ShapeError);
  // A term of rank 0 is none.
  const std::vector<graft::LowRankTerm<double>> empty{
      {Parameter(Tensor::zeros({0, 2})), Parameter(Tensor::zeros({3, 0})), 1}};
  const auto leaf = tape.leaf(x.value());
  const auto y = linear_low_rank_rows(base, leaf, empty, {{0, 0, 6}}), plain = linear(base, leaf);
  CHECK(std::equal(y.value().begin(), y.value().end(), plain.value().begin()));
  tape.backward(y, Tensor::ones({6, 3}));
  for (Index i = 0; i < 12; ++i) {
    double column = 0;
    for (Index o = 0; o < 3; ++o) column += base.dense_weight()(o, i % 2);
    CHECK(leaf.grad()[i] == Approx(column));
  }
  CHECK_THROWS_AS(linear_low_rank_rows(base, x, one, {{0, 3, 4}}), graft::ShapeError);
}
