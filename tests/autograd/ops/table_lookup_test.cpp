#include "graft/autograd/ops/table_lookup.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/reduce.hpp"

using graft::BasicParameter;
using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

TEST_CASE("A weight of table entries sums its gradient over the places that read an entry") {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  auto values = BasicTensor<double>::empty({3, 2, 4}), dy = BasicTensor<double>::empty({3, 11});
  for (double& v : values) v = normal(random);
  for (double& v : dy) v = normal(random);
  std::vector<std::uint8_t> codes(33);
  for (auto& code : codes) code = static_cast<std::uint8_t>(random() % 4);
  const auto shared = std::make_shared<const std::vector<std::uint8_t>>(codes);
  const BasicParameter<double> table(values);
  {
    BasicTape<double> tape;
    const auto w = table_lookup(tape.parameter(table), shared, 11);
    for (Index o = 0; o < 3; ++o)
      for (Index j = 0; j < 11; ++j)
        CHECK(w.value()(o, j) ==
              values[(o * 2 + (j * 2) / 11) * 4 + codes[static_cast<std::size_t>(o * 11 + j)]]);
  }
  const auto check = graft::gradient_check(
      [&](BasicTape<double>& tape) {
        const auto w = table_lookup(tape.parameter(table), shared, 11);
        return sum(mul(square(w), tape.constant(dy)));
      },
      {table});
  CHECK(check.relative_error < 1e-8);
  BasicTape<double> tape;
  CHECK_THROWS_WITH(table_lookup(tape.parameter(table), shared, 12),
                    Catch::Contains("33 codes in rows of 12"));
}
