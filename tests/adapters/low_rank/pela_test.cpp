#include "graft/adapters/low_rank/pela.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using PELA = graft::BasicPELA<double>;

TEST_CASE("PELA has right gradients, merges, and as many elements as its rank says") {
  const graft::PELAConfig config{.compress_ratio = 2};
  CHECK(checks::gradient_error<PELA>(config) < 1e-7);
  CHECK(checks::merge_error<graft::PELA>(config) < 1e-5);
  CHECK(config.rank(12, 10) == 2);
  CHECK(graft::PELAConfig().rank(768, 3072) == 204);
  CHECK(checks::trained<graft::PELA>(config, 10, 12) == 2 * 22 + 10);
}

TEST_CASE("PELA of full rank is the layer, below it the best product of its rank") {
  CHECK(checks::change_at_init<PELA>({.compress_ratio = 0.1}) < 1e-12);
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto method = checks::make<PELA>({.compress_ratio = 2}, checks::site_of(layer));
  const auto d = graft::svd(layer.dense_weight());
  const auto found = graft::detail::product(method.second().value(), method.first().value());
  double error = 0, rest = 0;
  for (graft::Index i = 0; i < found.size(); ++i)
    error += (found[i] - layer.dense_weight()[i]) * (found[i] - layer.dense_weight()[i]);
  for (graft::Index k = 2; k < 10; ++k) rest += d.s[k] * d.s[k];
  CHECK(error == Approx(rest));
}

TEST_CASE("the losses of PELA have the gradients of their functions") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const graft::PELAConfig config{.compress_ratio = 2, .feature_weight = 0.7, .bound_weight = 0.3};
  const auto method = checks::make<PELA>(config, checks::site_of(layer));
  const auto x = checks::random_tensor<double>({3, 12}, 2);
  const auto teacher = checks::base_output(layer, x);
  std::vector<graft::BasicParameter<double>> parameters;
  for (const auto& t : method.tensors()) parameters.push_back(t.parameter);
  const auto loss = [&](graft::BasicTape<double>& tape) {
    return add(method.auxiliary_loss(tape),
               graft::pela_feature_loss(std::vector{method.apply(layer, tape.constant(x))},
                                        std::vector{teacher}, config));
  };
  CHECK(graft::gradient_check(loss, parameters).relative_error < 1e-6);
  graft::BasicTape<double> tape;
  CHECK_THROWS_AS(graft::pela_feature_loss(std::vector<graft::BasicVar<double>>{},
                                           std::vector{teacher}, config),
                  graft::ValueError);
}

TEST_CASE("heads with few outputs stay as they are") {
  const auto layer = checks::random_layer<double>(9, 12, 1);
  graft::StandaloneInit<double> init(0);
  CHECK(graft::PELAMethod<double>::linear({}, checks::site_of(layer), init.context()) == nullptr);
  CHECK(graft::PELAMethod<double>::linear({.smallest_output = 9}, checks::site_of(layer),
                                          init.context()) != nullptr);
}
