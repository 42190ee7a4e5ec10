#include "graft/adapters/quantized/metis.hpp"

#include "adapters/method_checks.hpp"

using graft::Metis;
using graft::MetisConfig;

TEST_CASE("Metis splits the weight by its singular vectors and trains all of it") {
  const MetisConfig config{.rank = 3};
  CHECK(checks::change_at_init<graft::BasicMetis<double>>(config) < 1e-12);
  CHECK(checks::trained<Metis>(config) == 3 * (10 + 12 + 1) + 10 * 12 + 10);
  CHECK(checks::trained<Metis>({.rank = 60}) == 10 * (10 + 12 + 1) + 10 * 12 + 10);
  CHECK(checks::merge_error<Metis>(config) < 1e-5);
  CHECK(checks::merge_error<Metis>(config, 7, 9, false) < 1e-5);
  CHECK(checks::gradient_error<graft::BasicMetis<double>>(config) < 1e-6);
  CHECK_THROWS_WITH(checks::trained<Metis>({.rank = 0}), Catch::Contains("rank 0"));
}

TEST_CASE("The dual-range loss of Metis pushes weights from zero and from large values") {
  MetisConfig config{.rank = 2};
  const auto layer = checks::random_layer<double>(4, 5, 1);
  const graft::BasicMetis<double> none(config, layer);
  graft::BasicTape<double> tape;
  CHECK_FALSE(none.auxiliary_loss(tape));
  config.regulariser_weight = 0.5;
  const graft::BasicMetis<double> method(config, layer);
  checks::randomize(method, 1.0);
  std::vector<graft::BasicParameter<double>> parameters;
  double expected = 0;
  for (const auto& t : method.tensors()) {
    if (t.name == "bias" || t.name == "metis_S") continue;
    parameters.push_back(t.parameter);
    // Away from the pole, where differences are of no use.
    for (double& v : t.parameter.value()) v += v < 0 ? -0.5 : 0.5;
    for (const double v : t.parameter.value())
      expected +=
          0.5 * (v * v + 1 / ((v + 1e-6) * (v + 1e-6))) / static_cast<double>(t.parameter.size());
  }
  CHECK(method.auxiliary_loss(tape).item() == Approx(expected));
  CHECK(graft::gradient_check([&](graft::BasicTape<double>& t) { return method.auxiliary_loss(t); },
                              parameters)
            .relative_error < 1e-6);
}
