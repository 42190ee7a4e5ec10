#include "graft/adapters/low_rank/psec.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using PSEC = graft::BasicPSEC<double>;

TEST_CASE("a skill in training is LoRA with its own scale; the others rest") {
  const graft::PSECConfig config{.rank = 3, .alpha = 2, .skills = 3, .active_skill = 1};
  CHECK(checks::change_at_init<PSEC>(config) < 1e-12);
  CHECK(checks::gradient_error<PSEC>(config) < 1e-7);
  CHECK(checks::merge_error<graft::PSEC>(config) < 1e-5);
  CHECK(checks::trained<graft::PSEC>(config, 10, 12) == 3 * 22);
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto method = checks::make<PSEC>(config, checks::site_of(layer));
  const double bound = 2 / std::sqrt(6.0);
  for (const double a : method.a(1).value()) CHECK(std::abs(a) <= bound);
  CHECK_THROWS_AS(checks::make<PSEC>({.skills = 2, .active_skill = 2}, checks::site_of(layer)),
                  graft::ValueError);
}

TEST_CASE("skills are mixed row by row by a network of the context") {
  graft::PSECConfig config{
      .rank = 2, .alpha = 1.5, .skills = 3, .phase = 2, .context_features = 4, .hidden = {5}};
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto method = checks::make<PSEC>(config, checks::site_of(layer));
  CHECK(graft::trainable_elements(method.tensors()) == 4 * 5 + 5 + 5 * 3 + 3);
  const auto x = checks::random_tensor<double>({6, 6}, 2);
  CHECK_THROWS_WITH(checks::output(method, layer, x), Catch::Contains("set_context"));
  method.set_context(checks::random_tensor<double>({3, 4}, 3));
  CHECK(checks::relative_error(checks::output(method, layer, x), checks::base_output(layer, x)) <
        1e-12);
  for (graft::Index i = 0; i < 3; ++i) {
    method.a(i).assign(checks::random_tensor<double>({2, 6}, 10 + static_cast<unsigned>(i)));
    method.b(i).assign(checks::random_tensor<double>({5, 2}, 20 + static_cast<unsigned>(i)));
  }
  // Two neighbouring rows of x to a row of the context.
  graft::BasicTape<double> tape;
  const auto c = method.coefficients(tape).value();
  auto expected = checks::base_output(layer, x).clone();
  for (graft::Index i = 0; i < 3; ++i) {
    const auto term =
        graft::detail::product(graft::detail::product(x, method.a(i).value(), 1.0, false, true),
                               method.b(i).value(), 1.0, false, true);
    for (graft::Index row = 0; row < 6; ++row)
      for (graft::Index o = 0; o < 5; ++o) expected(row, o) += c(row / 2, i) * term(row, o);
  }
  CHECK(checks::relative_error(checks::output(method, layer, x), expected) < 1e-12);

  std::vector<graft::BasicParameter<double>> parameters{method.context()};
  method.context().set_trainable(true);
  for (const auto& t : method.tensors())
    if (t.parameter.trainable()) parameters.push_back(t.parameter);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& t) {
              return add(sum(square(method.apply(layer, t.constant(x)))), method.auxiliary_loss(t));
            },
            parameters)
            .relative_error < 1e-6);
  CHECK_THROWS_AS(method.set_context(checks::random_tensor<double>({3, 5}, 3)), graft::ShapeError);
  CHECK_THROWS_AS(merge_linear(layer, method), graft::ValueError);
}
