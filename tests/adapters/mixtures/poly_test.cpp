#include "graft/adapters/mixtures/poly.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicPoly;
using graft::Index;
using graft::PolyConfig;

namespace {

const PolyConfig kConfig{.rank = 2, .tasks = 3, .skills = 4, .splits = 2};

std::shared_ptr<graft::ForwardContext> tasks(std::vector<std::int64_t> ids) {
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = static_cast<Index>(ids.size());
  context->task_ids = std::move(ids);
  return context;
}

}  // namespace

TEST_CASE("Poly gives rows of one task one update, and is the identity at the start") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto poly = checks::make<BasicPoly<double>>(kConfig, checks::site_of(layer));
  CHECK(graft::trainable_elements(poly.tensors()) == 4 * 2 * (10 + 12) + 3 * 2 * 4);
  auto x = checks::random_tensor<double>({3, 2, 12}, 2);
  std::copy_n(x.data(), 24, x.data() + 24);  // rows 0 and 1 are equal
  const auto run = [&](std::vector<std::int64_t> ids) {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    tape.set_context(tasks(std::move(ids)));
    return poly.apply(layer, tape.constant(x)).value();
  };
  CHECK(checks::relative_error(run({0, 1, 2}), checks::base_output(layer, x)) < 1e-14);
  checks::randomize(poly);
  const auto same = run({1, 1, 2}), other = run({1, 0, 2});
  for (Index i = 0; i < 20; ++i) CHECK(same[i] == same[20 + i]);
  CHECK(std::abs(other[0] - other[20]) > 1e-6);
  CHECK_THROWS_WITH(run({0, 3, 0}), Catch::Contains("task 3 of 3"));
  CHECK_THROWS_WITH(run({}), Catch::Contains("n_tasks 3, and the batch has no task ids"));
}

TEST_CASE("One task of Poly needs no ids") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto poly = checks::make<BasicPoly<double>>(PolyConfig{.rank = 2}, checks::site_of(layer));
  checks::randomize(poly);
  const auto x = checks::random_tensor<double>({3, 2, 12}, 2);
  const auto run = [&](bool training, std::vector<std::int64_t> ids) {
    graft::BasicTape<double> tape({.gradients = false, .training = training, .seed = 4});
    auto context = tasks(std::move(ids));
    context->batch = 3;
    tape.set_context(context);
    return poly.apply(layer, tape.constant(x)).value();
  };
  for (const bool training : {false, true})
    CHECK(checks::relative_error(run(training, {}), run(training, {0, 0, 0})) == 0);
  CHECK(checks::relative_error(run(false, {}), checks::base_output(layer, x)) > 1e-3);
}

TEST_CASE("gradients of Poly agree with differences, with given draws in training too") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  auto poly = checks::make<BasicPoly<double>>(kConfig, checks::site_of(layer));
  checks::randomize(poly);
  auto uniform = checks::random_tensor<double>({2, 2, 4}, 5);
  for (auto& u : uniform) u = 1 / (1 + std::exp(-u));
  poly.set_uniform(uniform);
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(checks::random_tensor<double>({2, 3, 12}, 4))};
  for (const auto& t : poly.tensors()) parameters.push_back(t.parameter);
  const auto weights = checks::random_tensor<double>({2, 3, 10}, 6);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              tape.set_context(tasks({2, 0}));
              return sum(
                  mul(poly.apply(layer, tape.parameter(parameters[0])), tape.constant(weights)));
            },
            parameters)
            .relative_error < 1e-8);
}

TEST_CASE("What one task of Poly sees is a LoRA, and a new task starts from the mean of all") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto poly = checks::make<BasicPoly<double>>(kConfig, checks::site_of(layer));
  checks::randomize(poly);
  const auto list = poly.tensors();
  const auto &a = list[0].parameter.value(), &b = list[1].parameter.value(),
             &z = list[2].parameter.value();
  const auto x = checks::random_tensor<double>({1, 3, 12}, 2);
  const auto skill = graft::task_skill(a, b, z, 2);
  graft::BasicTape<double> tape({.gradients = false, .training = false});
  tape.set_context(tasks({2}));
  const auto whole = poly.apply(layer, tape.constant(x)).value();
  const auto low = matmul(tape.constant(x), tape.parameter(skill.a), graft::Transpose::no,
                          graft::Transpose::yes);
  const auto update =
      matmul(low, tape.parameter(skill.b), graft::Transpose::no, graft::Transpose::yes).value();
  auto sum = checks::base_output(layer, x).clone();
  for (Index i = 0; i < sum.size(); ++i) sum[i] += skill.scaling * update[i];
  CHECK(checks::relative_error(sum, whole) < 1e-12);

  const auto start = graft::mean_task_logits(z);
  CHECK(start.shape() == graft::Shape{1, 8});
  CHECK(start[5] == Approx((z(0, 5) + z(1, 5) + z(2, 5)) / 3));
  // Equal logits weigh all skills alike.
  const auto even = graft::task_skill(a, b, graft::BasicTensor<double>::zeros({1, 8}), 0),
             mean = graft::mean_skill(a, b);
  CHECK(checks::relative_error(even.a.value(), mean.a.value()) < 1e-11);
  CHECK(checks::relative_error(even.b.value(), mean.b.value()) < 1e-11);
  CHECK_THROWS_WITH(graft::task_skill(a, b, z, 3), Catch::Contains("task 3 of 3"));
  CHECK_THROWS_AS(graft::task_skill(a, b, start.reshape({2, 4}), 0), graft::ShapeError);
  CHECK_THROWS_AS(graft::mean_skill(b, a), graft::ShapeError);
}

TEST_CASE("Poly refuses splits that do not divide the layer") {
  const auto layer = checks::random_layer<float>(10, 12, 1);
  auto config = kConfig;
  config.splits = 4;
  CHECK_THROWS_WITH(checks::make<BasicPoly<float>>(config, checks::site_of(layer)),
                    Catch::Contains("n_splits 4"));
}
