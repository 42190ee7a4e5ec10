#include "graft/adapters/representation/orthonormal_rows.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/representation/loreft.hpp"
#include "graft/optim/adamw.hpp"

using graft::BasicTensor;
using graft::Index;

namespace {

template <class T>
double worst_overlap(const BasicTensor<T>& rows) {
  const auto gram = graft::detail::product(rows, rows, T{1}, false, true);
  double worst = 0;
  for (Index i = 0; i < gram.rows(); ++i)
    for (Index j = 0; j < gram.cols(); ++j)
      worst = std::max(worst, std::abs(static_cast<double>(gram(i, j)) - (i == j ? 1 : 0)));
  return worst;
}

}  // namespace

TEST_CASE("rows that are retracted are orthonormal and stay where they are if they were") {
  const auto a = checks::random_tensor<double>({4, 9}, 1);
  const auto rows = graft::retracted_rows(a);
  CHECK(worst_overlap(rows) < 1e-14);
  CHECK(checks::relative_error(graft::retracted_rows(rows), rows) < 1e-14);
  // The first row keeps its direction: the diagonal of the triangle is not negative.
  double norm = 0;
  for (Index j = 0; j < 9; ++j) norm += a(0, j) * a(0, j);
  for (Index j = 0; j < 9; ++j) CHECK(rows(0, j) == Approx(a(0, j) / std::sqrt(norm)));
  CHECK_THROWS_AS(graft::retracted_rows(checks::random_tensor<double>({4, 3}, 1)),
                  graft::ShapeError);
}

TEST_CASE("a step along the tangent gradient leaves rows orthonormal to first order") {
  const auto rows = graft::retracted_rows(checks::random_tensor<double>({3, 7}, 1));
  const auto g = checks::random_tensor<double>({3, 7}, 2);
  const auto tangent = graft::tangent_gradient(g, rows);
  const auto off = [&](const BasicTensor<double>& direction, double step) {
    auto moved = rows.clone();
    for (Index i = 0; i < moved.size(); ++i) moved[i] += step * direction[i];
    return worst_overlap(moved);
  };
  CHECK(off(tangent, 1e-4) < 1e-6);
  CHECK(off(g, 1e-4) > 1e-5);
}

TEST_CASE("rows stay orthonormal over many steps, retracted or by Householder vectors") {
  for (const char* form : {"retraction", "householder"}) {
    const graft::LoReftConfig config{.rank = 4, .positions = "all", .parametrisation = form};
    const auto layer = checks::random_layer<float>(13, 6, 1);
    const auto part =
        graft::linear_part(checks::make<graft::LoReft>(config, checks::site_of(layer)));
    auto* method = graft::method_of<graft::LoReft>(part.get());
    std::vector<graft::Parameter> parameters;
    for (const auto& t : method->tensors()) parameters.push_back(t.parameter);
    const auto procedure = graft::LoReftMethod<float>::procedure(config, {{"proj", part}});
    CHECK((procedure == nullptr) == config.householder());
    graft::AdamW optimizer(parameters, {.learning_rate = 1e-2F});
    const auto x = checks::random_tensor<float>({5, 6}, 3),
               goal = checks::random_tensor<float>({5, 13}, 4);
    for (Index step = 1; step <= 300; ++step) {
      optimizer.zero_grad();
      graft::Tape tape;
      tape.backward(mse(method->apply(layer, tape.constant(x)), tape.constant(goal)));
      optimizer.step();
      if (procedure) procedure->after_step({step, 300, 1e-2});
    }
    graft::Tape tape({.gradients = false});
    const auto value = tape.parameter(parameters[0]);
    const auto rows = config.householder() ? householder_rows(value).value() : value.value();
    CHECK(worst_overlap(rows) < 1e-5);
  }
}
