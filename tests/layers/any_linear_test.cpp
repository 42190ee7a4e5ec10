#include "graft/layers/any_linear.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;
using graft::MatrixView;

namespace {

/// A layer of one's own that models FrozenLinear and nothing more: y_j = Σ_i (i + 2 j) x_i + j.
struct Ramp {
  using Scalar = double;
  Index in = 0, out = 0;
  Index in_features() const { return in; }
  Index out_features() const { return out; }
  static double weight(Index o, Index i) { return static_cast<double>(i + 2 * o) / 7; }
  void forward(MatrixView<const double> x, MatrixView<double> y) const {
    for (Index r = 0; r < x.rows(); ++r)
      for (Index o = 0; o < out; ++o) {
        y(r, o) = static_cast<double>(o);
        for (Index i = 0; i < in; ++i) y(r, o) += weight(o, i) * x(r, i);
      }
  }
  void backward_input(MatrixView<const double> dy, MatrixView<double> dx) const {
    for (Index r = 0; r < dy.rows(); ++r)
      for (Index i = 0; i < in; ++i)
        for (Index o = 0; o < out; ++o) dx(r, i) += weight(o, i) * dy(r, o);
  }
};
static_assert(graft::FrozenLinear<Ramp> && !graft::FusesLowRank<Ramp> &&
              !graft::DenseWeights<Ramp>);
static_assert(graft::FusesLowRank<graft::DenseLinear> && graft::DenseWeights<graft::DenseLinear>);
static_assert(graft::FusesLowRank<graft::AnyLinear> && graft::DenseWeights<graft::AnyLinear>);

template <class L>
void check_gradients(const L& layer) {
  const Index in = layer.in_features(), out = layer.out_features(), rank = 3;
  const graft::BasicParameter<double> x(checks::random_tensor<double>({2, 4, in}, 1)),
      a(checks::random_tensor<double>({rank, in}, 2)),
      b(checks::random_tensor<double>({out, rank}, 3));
  const auto weights = checks::random_tensor<double>({2, 4, out}, 4);
  const auto loss = [&](BasicTape<double>& tape) {
    const auto vx = tape.parameter(x);
    const auto y =
        linear_low_rank(layer, vx, scale(vx, 2), tape.parameter(a), tape.parameter(b), 0.7);
    return sum(mul(y, tape.constant(weights)));
  };
  CHECK(graft::gradient_check(loss, {x, a, b}).relative_error < 1e-8);
  const auto same = [&](BasicTape<double>& tape) {
    const auto vx = tape.parameter(x);
    const auto y = linear_low_rank(layer, vx, vx, tape.parameter(a), tape.parameter(b), 0.7);
    return sum(mul(add(y, linear(layer, vx)), tape.constant(weights)));
  };
  CHECK(graft::gradient_check(same, {x, a, b}).relative_error < 1e-8);
}

}  // namespace

TEST_CASE("A layer of one's own runs behind AnyLinear as it does alone") {
  const Ramp ramp{5, 3};
  const graft::BasicAnyLinear<double> any(ramp);
  const auto x = checks::random_tensor<double>({4, 5}, 1);
  BasicTape<double> tape({.gradients = false});
  const auto alone = linear(ramp, tape.constant(x)).value();
  const auto erased = linear(any, tape.constant(x)).value();
  CHECK(std::equal(alone.begin(), alone.end(), erased.begin()));
  CHECK(any.as<Ramp>() != nullptr);
  CHECK(any.as<graft::BasicDenseLinear<double>>() == nullptr);
}

TEST_CASE("Weight and bias of a layer that only maps are read off what it maps") {
  const Ramp ramp{5, 3};
  const auto w = graft::weight_of(ramp);
  for (Index o = 0; o < 3; ++o)
    for (Index i = 0; i < 5; ++i) CHECK(w(o, i) == Approx(Ramp::weight(o, i)).margin(1e-12));
  const auto b = graft::bias_of(ramp);
  CHECK(b.size() == 3);
  CHECK(b[2] == 2);
  const graft::BasicAnyLinear<double> any(ramp);
  CHECK(checks::relative_error(any.dense_weight(), w) < 1e-12);
  auto rows = BasicTensor<double>::empty({2, 5});
  any.write_weight(1, rows.matrix());
  CHECK(rows(0, 3) == Approx(w(1, 3)));
}

TEST_CASE("Gradients through a base with a low-rank term agree with differences for every base") {
  check_gradients(checks::random_layer<double>(6, 5, 1));
  check_gradients(Ramp{5, 3});
  check_gradients(graft::BasicAnyLinear<double>(Ramp{5, 3}));
  check_gradients(graft::BasicAnyLinear<double>(checks::random_layer<double>(4, 7, 1, false)));
}

TEST_CASE("The low-rank term inside the product is the term beside it") {
  const auto layer = checks::random_layer<float>(37, 29, 1);
  const auto x = checks::random_tensor<float>({11, 29}, 2),
             a = checks::random_tensor<float>({5, 29}, 3),
             b = checks::random_tensor<float>({37, 5}, 4);
  graft::Tape tape({.gradients = false});
  const auto vx = tape.constant(x);
  const auto fused =
      linear_low_rank(layer, vx, vx, tape.constant(a), tape.constant(b), 0.5F).value();
  const auto h = matmul(vx, tape.constant(a), graft::Transpose::no, graft::Transpose::yes);
  const auto beside =
      add(linear(layer, vx),
          scale(matmul(h, tape.constant(b), graft::Transpose::no, graft::Transpose::yes), 0.5F))
          .value();
  CHECK(checks::relative_error(fused, beside) < 1e-6);
}

TEST_CASE("Inputs and factors of another width are refused with both shapes") {
  const auto layer = checks::random_layer<float>(6, 5, 1);
  graft::Tape tape;
  const auto x = tape.constant(checks::random_tensor<float>({2, 4}, 1));
  CHECK_THROWS_WITH(linear(layer, x), Catch::Contains("[2, 4]") && Catch::Contains("5"));
  const auto good = tape.constant(checks::random_tensor<float>({2, 5}, 1));
  const auto a = tape.constant(checks::random_tensor<float>({3, 5}, 1)),
             b = tape.constant(checks::random_tensor<float>({6, 2}, 1));
  CHECK_THROWS_AS(linear_low_rank(layer, good, good, a, b, 1.0F), graft::ShapeError);
}
