#include "graft/optim/lomo.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/autograd/ops/reduce.hpp"
#include "graft/optim/sgd.hpp"

using checks::random_tensor;
using graft::BasicParameter;
using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

namespace {

/// Two layers; the second weight is needed for the gradient of the first.
struct Network {
  BasicParameter<double> first{random_tensor<double>({6, 5}, 1)},
      second{random_tensor<double>({4, 6}, 2)}, bias{random_tensor<double>({4}, 3)};
  std::vector<BasicParameter<double>> parameters() const { return {first, second, bias}; }

  template <class Put>
  graft::BasicVar<double> loss(BasicTape<double>& tape, Put&& put) const {
    const auto x = tape.constant(random_tensor<double>({7, 5}, 4));
    const auto w1 = put(first), w2 = put(second), b = put(bias);
    const auto h = gelu(matmul(x, w1, graft::Transpose::no, graft::Transpose::yes));
    return mean(square(add(matmul(h, w2, graft::Transpose::no, graft::Transpose::yes), b)));
  }
  void backward() const {
    BasicTape<double> tape;
    tape.backward(loss(tape, [&](const auto& p) { return tape.parameter(p); }));
  }
};
double distance(const Network& a, const Network& b) {
  double most = 0;
  for (std::size_t k = 0; k < 3; ++k)
    for (Index i = 0; i < a.parameters()[k].size(); ++i)
      most = std::max(most, std::abs(a.parameters()[k].value()[i] - b.parameters()[k].value()[i]));
  return most;
}

}  // namespace

TEST_CASE("LOMO fused into the backward pass is gradient descent and keeps no gradient") {
  const Network fused, plain;
  graft::BasicLomo<double> lomo(fused.parameters(), {.learning_rate = 0.1});
  graft::BasicSgd<double> sgd(plain.parameters(), {.learning_rate = 0.1});
  for (int step = 0; step < 3; ++step) {
    BasicTape<double> tape;
    tape.backward(fused.loss(tape, [&](const auto& p) { return lomo.use(tape, p); }));
    for (const auto& p : fused.parameters()) CHECK_FALSE(p.grad());
    plain.backward();
    sgd.step();
    sgd.zero_grad();
  }
  CHECK(distance(fused, plain) < 1e-12);
  CHECK(distance(fused, Network()) > 1e-3);
}

TEST_CASE("LOMO clips by value and, with a pass that measures, by the norm of all gradients") {
  const Network value, norm, reference;
  reference.backward();
  const double size = graft::gradient_norm(reference.parameters());
  REQUIRE(size > 0.5);
  {
    graft::BasicLomo<double> lomo(value.parameters(),
                                  {.learning_rate = 0.1, .clip_grad_value = 0.05});
    BasicTape<double> tape;
    tape.backward(value.loss(tape, [&](const auto& p) { return lomo.use(tape, p); }));
  }
  for (const bool fused : {true, false}) {
    const Network network;
    graft::BasicLomo<double> lomo(network.parameters(),
                                  {.learning_rate = 0.1, .clip_grad_norm = 0.5});
    if (fused) {
      for (const bool measure : {true, false}) {
        if (measure) lomo.begin_measuring();
        BasicTape<double> tape;
        tape.backward(network.loss(tape, [&](const auto& p) { return lomo.use(tape, p); }));
        if (measure) CHECK(lomo.end_measuring(0.5) == Approx(size));
        if (measure) CHECK(distance(network, Network()) == 0);
      }
    } else {
      network.backward();
      lomo.step();
    }
    for (std::size_t k = 0; k < 3; ++k)
      for (Index i = 0; i < reference.parameters()[k].size(); ++i) {
        const auto p = reference.parameters()[k];
        CHECK(network.parameters()[k].value()[i] ==
              Approx(p.value()[i] - 0.1 * p.grad()[i] * 0.5 / (size + 1e-6)).margin(1e-12));
      }
  }
  for (std::size_t k = 0; k < 3; ++k)
    for (Index i = 0; i < reference.parameters()[k].size(); ++i) {
      const auto p = reference.parameters()[k];
      CHECK(
          value.parameters()[k].value()[i] ==
          Approx(p.value()[i] - 0.1 * std::min(0.05, std::max(-0.05, p.grad()[i]))).margin(1e-12));
    }
  CHECK_THROWS_WITH(graft::BasicLomo<double>(value.parameters(), {.clip_grad_norm = -1}),
                    Catch::Contains("norm -1"));
}

TEST_CASE("AdaLomo takes steps of the size of the parameter from a factored second moment") {
  const Network fused, stepped;
  const graft::AdaLomoConfig config{.learning_rate = 0.01};
  graft::BasicAdaLomo<double> a(fused.parameters(), config), b(stepped.parameters(), config);
  for (int step = 0; step < 3; ++step) {
    BasicTape<double> tape;
    tape.backward(fused.loss(tape, [&](const auto& p) { return a.use(tape, p); }));
    stepped.backward();
    b.step();
    b.zero_grad();
  }
  CHECK(distance(fused, stepped) < 1e-12);
  const auto& moment = a.second_moment(fused.first);
  CHECK(moment.steps == 3);
  CHECK(moment.row.size() == 6);
  CHECK(moment.column.size() == 5);
  CHECK(a.second_moment(fused.bias).row.size() == 4);
  CHECK(a.second_moment(fused.bias).column.empty());

  // The first step of a vector is η RMS(p) sign(g).
  const Network start;
  start.backward();
  graft::BasicAdaLomo<double> one({start.bias}, config);
  const auto before = start.bias.value().clone();
  one.step();
  double size = 0;
  for (const double v : before) size += v * v / 4;
  for (Index i = 0; i < 4; ++i)
    CHECK(std::abs(start.bias.value()[i] - before[i]) == Approx(0.01 * std::sqrt(size)));
  CHECK_THROWS_WITH(graft::BasicAdaLomo<double>({start.bias}, {.eps = {1e-30}}),
                    Catch::Contains("1 eps"));
}
