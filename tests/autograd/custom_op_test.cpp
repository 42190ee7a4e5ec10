#include "graft/autograd/custom_op.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <stdexcept>

#include "adapters/method_checks.hpp"
#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/loss.hpp"

namespace {

using Catch::Contains;
using graft::Index;

/// y = a · sin(b), element by element.
template <class T>
struct ScaledSine {
  using Tensor = graft::BasicTensor<T>;
  Tensor a, b;

  Tensor forward(const Tensor& left, const Tensor& right) {
    a = left;
    b = right;
    auto y = Tensor::empty(a.shape());
    for (Index i = 0; i < y.size(); ++i) y[i] = a[i] * std::sin(b[i]);
    return y;
  }
  std::array<Tensor, 2> backward(const Tensor& dy) {
    auto da = Tensor::empty(a.shape()), db = Tensor::empty(a.shape());
    for (Index i = 0; i < dy.size(); ++i) {
      da[i] = dy[i] * std::sin(b[i]);
      db[i] = dy[i] * a[i] * std::cos(b[i]);
    }
    return {da, db};
  }
};

/// Σ huber(x - target); the target has no gradient.
template <class T>
struct HuberLoss {
  using Tensor = graft::BasicTensor<T>;
  Tensor difference;

  Tensor forward(const Tensor& x, const Tensor& target) {
    difference = Tensor::empty(x.shape());
    T sum{0};
    for (Index i = 0; i < x.size(); ++i) {
      const T d = difference[i] = x[i] - target[i];
      sum += std::abs(d) < 1 ? d * d / 2 : std::abs(d) - T{1} / 2;
    }
    return Tensor::scalar(sum);
  }
  std::array<Tensor, 2> backward(const Tensor& dy) const {
    auto dx = Tensor::empty(difference.shape());
    for (Index i = 0; i < dx.size(); ++i)
      dx[i] = dy[0] *
              (std::abs(difference[i]) < 1 ? difference[i] : std::copysign(T{1}, difference[i]));
    return {dx, Tensor{}};
  }
};

struct Faulty {
  bool in_forward;
  graft::Tensor forward(const graft::Tensor& x) const {
    if (in_forward) throw std::runtime_error("forward failed");
    return x.clone();
  }
  std::array<graft::Tensor, 1> backward(const graft::Tensor&) const {
    throw std::runtime_error("backward failed");
  }
};

struct WrongSize {
  graft::Tensor forward(const graft::Tensor& x) const { return x.clone(); }
  std::array<graft::Tensor, 1> backward(const graft::Tensor&) const {
    return {graft::Tensor::zeros({1})};
  }
};

struct NoBackward {
  graft::Tensor forward(const graft::Tensor& x) const { return x; }
};

/// A module of one's own: parameters and a map on the tape.
struct Gate {
  graft::BasicParameter<double> w, b;
  graft::BasicVar<double> operator()(const graft::BasicVar<double>& x) const {
    auto& tape = x.tape();
    return custom_op(ScaledSine<double>{}, x,
                     graft::add(graft::mul(x, tape.parameter(w)), tape.parameter(b)));
  }
};

}  // namespace

static_assert(graft::CustomOperation<ScaledSine<float>, float, 2>);
static_assert(!graft::CustomOperation<ScaledSine<float>, float, 1>);
static_assert(!graft::CustomOperation<ScaledSine<float>, double, 2>);
static_assert(!graft::CustomOperation<NoBackward, float, 1>);

TEST_CASE("An operation, a module and a loss of one's own pass the gradient check in one call") {
  const Gate gate{graft::BasicParameter<double>(checks::random_tensor<double>({7}, 1)),
                  graft::BasicParameter<double>(checks::random_tensor<double>({7}, 2))};
  const graft::BasicParameter<double> x(checks::random_tensor<double>({5, 7}, 3));
  const auto target = checks::random_tensor<double>({5, 7}, 4);
  const auto check = graft::gradient_check(
      [&](auto& tape) {
        return custom_op(HuberLoss<double>{}, gate(tape.parameter(x)), tape.constant(target));
      },
      {x, gate.w, gate.b});
  CHECK(check.relative_error < 1e-7);
}

TEST_CASE("A target that wants a gradient gets none from a loss that gives none") {
  graft::Tape tape;
  const auto x = tape.leaf(graft::Tensor::ones({3})), target = tape.leaf(graft::Tensor::zeros({3}));
  const auto loss = custom_op(HuberLoss<float>{}, x, target);
  CHECK(loss.item() == 1.5F);
  tape.backward(loss);
  CHECK(x.grad()[2] == 1);
  CHECK_FALSE(target.grad());
  const auto frozen = custom_op(HuberLoss<float>{}, x.detach(), target.detach());
  CHECK_FALSE(frozen.requires_grad());
}

TEST_CASE("A hook sees the gradient and leaves it as it is") {
  graft::Tape tape;
  const auto x = tape.leaf(graft::Tensor::from({1, 2, 3}, {3}));
  graft::Tensor seen;
  const auto y = observe_gradient(graft::scale(x, 2), [&](const graft::Tensor& g) { seen = g; });
  tape.backward(graft::sum(graft::square(y)));
  REQUIRE(seen);
  for (Index i = 0; i < 3; ++i) {
    CHECK(seen[i] == 2 * y.value()[i]);
    CHECK(x.grad()[i] == 2 * seen[i]);
  }
}

TEST_CASE("After an exception of an operation of one's own the tape goes on") {
  graft::Tape tape;
  const graft::Parameter p(graft::Tensor::ones({4}));
  const auto x = tape.parameter(p);
  const auto before = graft::square(x);
  CHECK_THROWS_WITH(custom_op(Faulty{true}, before), "forward failed");
  tape.backward(graft::sum(before));
  CHECK(p.grad()[3] == 2);

  p.zero_grad();
  CHECK_THROWS_WITH(tape.backward(graft::sum(custom_op(Faulty{false}, tape.parameter(p)))),
                    "backward failed");
  CHECK_THROWS_WITH(tape.backward(graft::sum(custom_op(WrongSize{}, tape.parameter(p)))),
                    Contains("shape [1], expected [4]"));
  p.zero_grad();
  tape.backward(graft::sum(tape.parameter(p)));
  CHECK(p.grad()[0] == 1);
}

TEST_CASE("Operands on two tapes are refused") {
  graft::Tape one, two;
  const auto a = one.leaf(graft::Tensor::ones({2})), b = two.leaf(graft::Tensor::ones({2}));
  CHECK_THROWS_WITH(custom_op(HuberLoss<float>{}, a, b), Contains("different tapes"));
}
