#include "graft/optim/optimizer.hpp"

#include <catch2/catch.hpp>

#include "graft/optim/adamw.hpp"
#include "graft/optim/sgd.hpp"

using graft::Parameter;
using graft::Tensor;

namespace {

Parameter ones(graft::Index n) { return Parameter(Tensor::ones({n})); }
void give(const Parameter& p, float gradient) {
  p.mutable_grad() = Tensor::full(p.shape(), gradient);
}

}  // namespace

TEST_CASE("groups have learning rates and decays of their own, and a parameter counts once") {
  const auto a = ones(1), b = ones(1), c = ones(1);
  graft::Sgd optimizer({{{a}, 1, {}}, {{b, a}, 4, {}}, {{c}, 1, 0.5}}, {.learning_rate = 0.1});
  CHECK(optimizer.size() == 3);
  for (const auto& p : {a, b, c}) give(p, 1);
  optimizer.step();
  CHECK(a.value()[0] == Approx(0.9));
  CHECK(b.value()[0] == Approx(0.6));
  CHECK(c.value()[0] == Approx(0.85));
}

TEST_CASE("parameters without a gradient, or frozen ones, stay as they are") {
  const auto a = ones(2), b = ones(2), c = ones(2);
  graft::AdamW optimizer({a, b, c});
  give(a, 1);
  give(c, 1);
  c.set_trainable(false);
  optimizer.step();
  CHECK(a.value()[0] < 1);
  CHECK(b.value()[0] == 1);
  CHECK(c.value()[0] == 1);
  CHECK(optimizer.state(0).steps == 1);
  CHECK(optimizer.state(1).steps == 0);
}

TEST_CASE("the gradient scale is that of the gradients, and the learning rate can change") {
  const auto a = ones(1), b = ones(1);
  graft::Sgd first({a}, {.learning_rate = 0.1}), second({b}, {.learning_rate = 0.1});
  give(a, 2);
  first.step(0.25);
  second.set_learning_rate(0.05);
  give(b, 1);
  second.step();
  CHECK(a.value()[0] == Approx(0.95));
  CHECK(a.value()[0] == b.value()[0]);
}

TEST_CASE("a state that is put back continues as if nothing had happened") {
  const auto a = ones(3), b = ones(3);
  graft::AdamW first({a}), second({b});
  for (const float g : {0.5F, -2.0F}) {
    give(a, g);
    first.step();
  }
  b.assign(a.value().clone());
  second.set_state(0, {first.state(0).steps,
                       {first.state(0).moments[0].clone(), first.state(0).moments[1].clone()}});
  for (const auto& p : {a, b}) give(p, 0.75F);
  first.step();
  second.step();
  CHECK(a.value()[1] == b.value()[1]);
  CHECK_THROWS_AS(second.set_state(0, {1, {Tensor::zeros({3})}}), graft::ShapeError);
  CHECK_THROWS_AS(second.set_state(0, {1, {Tensor::zeros({2}), Tensor::zeros({2})}}),
                  graft::ShapeError);
}

TEST_CASE("a parameter of another size, or one that is reset, starts anew") {
  const auto a = ones(4);
  graft::AdamW optimizer({a});
  give(a, 1);
  optimizer.step();
  a.assign(Tensor::ones({2}));
  CHECK(optimizer.state(0).steps == 0);
  CHECK(optimizer.state(0).moments.empty());
  give(a, 1);
  optimizer.step();
  CHECK(optimizer.state(0).steps == 1);
  CHECK(optimizer.state(0).moments[0].size() == 2);
  optimizer.reset_state(a);
  CHECK(optimizer.state(0).moments.empty());
}

TEST_CASE("a gradient of another size is refused") {
  const auto a = ones(4);
  graft::AdamW optimizer({a});
  a.mutable_grad() = Tensor::ones({3});
  CHECK_THROWS_AS(optimizer.step(), graft::ShapeError);
  CHECK_THROWS_AS(graft::AdamW(std::vector<Parameter>{Parameter()}), graft::ValueError);
}
