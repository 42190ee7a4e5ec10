#include "graft/adapters/orthogonal/goft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicGOFT;
using graft::BasicQGOFT;
using graft::BasicTensor;
using graft::GOFT;
using graft::GOFTConfig;
using graft::Index;
using graft::QGOFT;
using graft::QGOFTConfig;

TEST_CASE("GOFT begins as the identity, differentiates and merges") {
  for (const bool scaling : {false, true}) {
    const GOFTConfig goft{.scaling = scaling};
    CHECK(checks::change_at_init<BasicGOFT<double>>(goft) == 0);
    CHECK(checks::gradient_error<BasicGOFT<double>>(goft, 10, 13) < 1e-7);
    CHECK(checks::merge_error<GOFT>(goft, 10, 13) < 1e-5);
    CHECK(checks::trained<GOFT>(goft, 10, 13) == 12 + (scaling ? 13 : 0));
    const QGOFTConfig qgoft{.scaling = scaling};
    CHECK(checks::change_at_init<BasicQGOFT<double>>(qgoft) == 0);
    CHECK(checks::gradient_error<BasicQGOFT<double>>(qgoft, 10, 13, 0.8) < 1e-7);
    CHECK(checks::merge_error<QGOFT>(qgoft, 10, 13, true, 0.8) < 1e-5);
    CHECK(checks::trained<QGOFT>(qgoft, 10, 13) == 48 + (scaling ? 13 : 0));
  }
  CHECK_THROWS_WITH(checks::trained<GOFT>({}, 10, 1), Catch::Contains("one input"));
}

TEST_CASE("GOFT is orthogonal, and qGOFT with rotations for blocks is GOFT") {
  const graft::BasicDenseLinear<double> one(BasicTensor<double>::identity(11));
  const auto goft = checks::make<BasicGOFT<double>>({}, checks::site_of(one));
  checks::randomize(goft, 1.0);
  const auto w = merge_linear(one, goft).dense_weight();
  CHECK(checks::relative_error(
            [&] {
              auto gram = BasicTensor<double>::zeros({11, 11});
              for (Index i = 0; i < 11; ++i)
                for (Index j = 0; j < 11; ++j)
                  for (Index k = 0; k < 11; ++k) gram(i, j) += w(i, k) * w(j, k);
              return gram;
            }(),
            BasicTensor<double>::identity(11)) < 1e-14);
  const auto quasi = checks::make<BasicQGOFT<double>>({}, checks::site_of(one));
  const auto theta = goft.tensors()[0].parameter.value();
  auto blocks = BasicTensor<double>::empty({10, 2, 2});
  for (Index p = 0; p < 10; ++p) {
    blocks[4 * p] = blocks[4 * p + 3] = std::cos(theta[p]);
    blocks[4 * p + 1] = -std::sin(theta[p]);
    blocks[4 * p + 2] = std::sin(theta[p]);
  }
  quasi.tensors()[0].parameter.assign(blocks);
  CHECK(checks::relative_error(merge_linear(one, quasi).dense_weight(), w) < 1e-15);
  graft::BasicTape<double> tape;
  CHECK(std::abs(quasi.auxiliary_loss(tape).item()) < 1e-30);
}

TEST_CASE("qGOFT's penalty counts what is not orthogonal in its blocks") {
  const auto layer = checks::random_layer<double>(4, 6, 1);
  const auto method =
      checks::make<BasicQGOFT<double>>({.penalty_weight = 0.5}, checks::site_of(layer));
  checks::randomize(method, 1.0);
  const auto parameter = method.tensors()[0].parameter;
  const auto& b = parameter.value();
  double expected = 0;
  for (Index p = 0; p < 5; ++p) {
    const double c = b[4 * p] * b[4 * p + 1] + b[4 * p + 2] * b[4 * p + 3];
    expected += 0.5 * c * c;
  }
  graft::BasicTape<double> tape;
  CHECK(method.auxiliary_loss(tape).item() == Approx(expected));
  CHECK(graft::gradient_check([&](graft::BasicTape<double>& t) { return method.auxiliary_loss(t); },
                              {parameter})
            .relative_error < 1e-7);
}
