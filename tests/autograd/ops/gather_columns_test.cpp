#include "graft/autograd/ops/gather_columns.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("Columns are gathered as rows, a fixed one gets no gradient") {
  const graft::BasicParameter<double> a(checks::random_tensor<double>({2, 5}, 1));
  const std::vector<std::int32_t> ids{3, 0, 3, 4};
  const auto weights = checks::random_tensor<double>({4, 2}, 2);
  const auto f = [&](graft::BasicTape<double>& tape) {
    return sum(mul(gather_columns(tape.parameter(a), ids), tape.constant(weights)));
  };
  graft::BasicTape<double> tape;
  const auto y = gather_columns(tape.parameter(a), ids).value();
  for (Index i = 0; i < 4; ++i)
    for (Index k = 0; k < 2; ++k) CHECK(y(i, k) == a.value()(k, ids[static_cast<std::size_t>(i)]));
  CHECK(graft::gradient_check(f, {a}).relative_error < 1e-8);
  a.zero_grad();
  graft::BasicTape<double> other;
  other.backward(sum(gather_columns(other.parameter(a), ids, 3)));
  CHECK(a.grad()[3] == 0);
  CHECK(a.grad()[4] == 1);
}
