#include "graft/autograd/ops/fake_quantise.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/reduce.hpp"

using graft::BasicParameter;
using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

namespace {

BasicTensor<double> random_tensor(const graft::Shape& shape, unsigned seed, double scale = 1,
                                  double mean = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(mean, scale);
  auto t = BasicTensor<double>::empty(shape);
  for (double& v : t) v = normal(random);
  return t;
}

struct Quantised {
  BasicParameter<double> w{random_tensor({5, 12}, 1)};
  BasicParameter<double> scale{random_tensor({5, 3}, 2, 0.02, 0.4)};
  BasicParameter<double> offset{random_tensor({5, 3}, 3, 0.1)};
  BasicTensor<double> dy = random_tensor({5, 12}, 4);
};

}  // namespace

TEST_CASE("The learned step, offset and weight of LSQ get the gradients of its formula") {
  const Quantised q;
  BasicTape<double> tape;
  const auto y =
      lsq_quantise(tape.parameter(q.w), tape.parameter(q.scale), tape.parameter(q.offset), -2, 1);
  auto dscale = BasicTensor<double>::zeros({5, 3}), doffset = BasicTensor<double>::zeros({5, 3});
  auto dw = BasicTensor<double>::zeros({5, 12});
  int clipped = 0;
  for (Index i = 0; i < 60; ++i) {
    const Index k = i / 4;
    const double v = (q.w.value()[i] - q.offset.value()[k]) / q.scale.value()[k];
    const double code = std::nearbyint(std::min(std::max(v, -2.0), 1.0));
    CHECK(y.value()[i] == Approx(q.scale.value()[k] * code + q.offset.value()[k]));
    const bool inside = v >= -2 && v <= 1;
    clipped += inside ? 0 : 1;
    dw[i] = inside ? q.dy[i] : 0;
    dscale[k] += q.dy[i] * (inside ? code - v : code);
    doffset[k] += inside ? 0 : q.dy[i];
  }
  CHECK(clipped > 5);
  CHECK(clipped < 55);
  tape.backward(y, q.dy);
  for (Index i = 0; i < 60; ++i) CHECK(q.w.grad()[i] == Approx(dw[i]).margin(1e-12));
  for (Index k = 0; k < 15; ++k) {
    CHECK(q.scale.grad()[k] == Approx(dscale[k]).margin(1e-12));
    CHECK(q.offset.grad()[k] == Approx(doffset[k]).margin(1e-12));
  }
  const auto one_a_row = tape.constant(BasicTensor<double>::full({5}, 0.3));
  CHECK(lsq_quantise(tape.constant(q.w.value()), one_a_row, {}, -2, 1).shape() ==
        graft::Shape{5, 12});
  CHECK_THROWS_WITH(lsq_quantise(tape.constant(q.w.value()),
                                 tape.constant(BasicTensor<double>::ones({5, 5})), {}, -2, 1),
                    Catch::Contains("fake quantiser"));
}

TEST_CASE("One step of LSQ for a whole weight gets what all rows give it") {
  const Quantised q;
  const BasicParameter<double> one(BasicTensor<double>::full({1}, 0.3)),
      rows(BasicTensor<double>::full({5}, 0.3));
  BasicTape<double> tape, other;
  const auto y = lsq_quantise(tape.parameter(q.w), tape.parameter(one), {}, -2, 1),
             z = lsq_quantise(other.constant(q.w.value()), other.parameter(rows), {}, -2, 1);
  for (Index i = 0; i < 60; ++i) CHECK(y.value()[i] == z.value()[i]);
  tape.backward(y, q.dy);
  other.backward(z, q.dy);
  double total = 0;
  for (Index o = 0; o < 5; ++o) total += rows.grad()[o];
  CHECK(one.grad()[0] == Approx(total));
}

TEST_CASE("Integers inside of their limits pass the gradient, the scale gets the integer") {
  const Quantised q;
  const BasicParameter<double> u(random_tensor({5, 12}, 5, 3));
  BasicTape<double> tape;
  const auto y = scaled_integers(tape.parameter(u), tape.parameter(q.scale), -4, 3);
  tape.backward(y, q.dy);
  auto dscale = BasicTensor<double>::zeros({5, 3});
  for (Index i = 0; i < 60; ++i) {
    const double n = std::nearbyint(u.value()[i]), code = std::min(std::max(n, -4.0), 3.0);
    const double s = q.scale.value()[i / 4];
    CHECK(y.value()[i] == Approx(s * code));
    CHECK(u.grad()[i] == Approx(n == code ? s * q.dy[i] : 0).margin(1e-12));
    dscale[i / 4] += q.dy[i] * code;
  }
  for (Index k = 0; k < 15; ++k) CHECK(q.scale.grad()[k] == Approx(dscale[k]).margin(1e-12));
}

TEST_CASE("Affine codes pass the gradients of their formula on") {
  const Quantised q;
  const BasicParameter<double> zero(random_tensor({5, 3}, 6, 0.6, 3));
  BasicTape<double> tape;
  const auto y =
      affine_quantise(tape.parameter(q.w), tape.parameter(q.scale), tape.parameter(zero), 7);
  tape.backward(y, q.dy);
  auto dscale = BasicTensor<double>::zeros({5, 3}), dzero = BasicTensor<double>::zeros({5, 3});
  for (Index i = 0; i < 60; ++i) {
    const Index k = i / 4;
    const double s = q.scale.value()[k], z = std::nearbyint(zero.value()[k]);
    const double n = std::nearbyint(q.w.value()[i] / s) + z;
    const double code = std::min(std::max(n, 0.0), 7.0), m = n == code ? 1 : 0;
    CHECK(y.value()[i] == Approx(s * (code - z)));
    CHECK(q.w.grad()[i] == Approx(m * q.dy[i]).margin(1e-12));
    dscale[k] += q.dy[i] * (code - z - m * q.w.value()[i] / s);
    dzero[k] += q.dy[i] * (m - 1) * s;
  }
  for (Index k = 0; k < 15; ++k) {
    CHECK(q.scale.grad()[k] == Approx(dscale[k]).margin(1e-12));
    CHECK(zero.grad()[k] == Approx(dzero[k]).margin(1e-12));
  }
}
