#include "graft/compose/parameter_formula.hpp"

#include <catch2/catch.hpp>

using graft::ParameterFormula;

namespace {

const ParameterFormula::Values kValues{{"in", 6}, {"out", 8}, {"r", 3}, {"block_size", 2}};

double per_site(std::string_view text) { return ParameterFormula(text).per_site(kValues); }

}  // namespace

TEST_CASE("Formulas of trained elements are evaluated as they are read") {
  CHECK(per_site("r (in + out)") == 42);
  CHECK(per_site("2 r out + r^2 - 1") == 56);
  CHECK(per_site("in out / block_size") == 24);
  CHECK(per_site("n (r + min(in, out)), n = ceil(in / 4)") == 18);
  CHECK(per_site("floor(0.3 out) max(r, 1, 2) + root(4 + 5)") == 9);
  CHECK(per_site("out; in where the layer is another") == 8);
  const ParameterFormula shared("h r, h = 5, once h block_size; and more");
  CHECK(shared.per_site(kValues) == 15);
  CHECK(shared.once(kValues) == 10);
  CHECK_FALSE(ParameterFormula("; depends on the data").closed());
  CHECK(ParameterFormula("once r").per_site(kValues) == 0);
}

TEST_CASE("What is no formula is refused") {
  CHECK_THROWS_WITH(per_site("r (in + out"), Catch::Contains("not closed"));
  CHECK_THROWS_WITH(per_site("r + width"), Catch::Contains("'width' has no value"));
  CHECK_THROWS_WITH(per_site("r + )"), Catch::Contains("unexpected"));
  CHECK_THROWS_WITH(per_site("r, in"), Catch::Contains("two expressions"));
}
