#include "graft/adapters/mixtures/esft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::Index;

TEST_CASE("ESFT selects the shortest beginning of the scores that is enough") {
  const auto gates =
      BasicTensor<double>::from(std::vector<double>{0.7, 0.3, 0, 0, 0.6, 0, 0.4, 0}, {1, 2, 1, 4});
  const auto gate = graft::esft::gate_scores(gates);
  CHECK(gate(0, 0) == Approx(0.65));
  CHECK(gate(0, 2) == Approx(0.2));
  const auto token = graft::esft::token_scores(gates, 2);
  CHECK(token(0, 0) == Approx(0.5));
  CHECK(token(0, 1) == Approx(0.25));
  CHECK(token(0, 3) == 0);
  using List = std::vector<std::vector<Index>>;
  CHECK(graft::esft::select_experts(gate, 0.65) == List{{0}});
  CHECK(graft::esft::select_experts(gate, 0.66) == List{{0, 2}});
  CHECK(graft::esft::select_experts(token, 0.6) == List{{0, 1}});
  CHECK(graft::esft::select_experts(gate, 1) == List{{0, 1, 2}});
  CHECK_THROWS_AS(graft::esft::select_experts(gate, 0.0), graft::ValueError);
  CHECK_THROWS_AS(graft::esft::gate_scores(gate), graft::ShapeError);
  CHECK_THROWS_AS(graft::esft::token_scores(gates, 0), graft::ValueError);
}
