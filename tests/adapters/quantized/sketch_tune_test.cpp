#include "graft/adapters/quantized/sketch_tune.hpp"

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::Index;
using graft::SketchTune;
using graft::SketchTuneConfig;

TEST_CASE("SketchTune trains the tables of a weight near the frozen one") {
  const SketchTuneConfig config{.bits = 3, .groups_per_row = 3};
  const auto layer = checks::random_layer<float>(10, 25, 1);
  const SketchTune method(config, layer);
  const auto merged = merge_linear(layer, method).dense_weight();
  CHECK(checks::relative_error(merged, layer.dense_weight()) < 0.25);
  CHECK(checks::relative_error(merged, layer.dense_weight()) > 0.001);
  CHECK(checks::trained<SketchTune>(config) == 10 * 3 * 8);
  CHECK(checks::merge_error<SketchTune>(config) < 1e-5);
  CHECK(checks::gradient_error<graft::BasicSketchTune<double>>(config) < 1e-6);
}

TEST_CASE("Learning a sketch brings the weighted error down and uses the weights given to it") {
  const auto w = checks::random_tensor<double>({4, 40}, 2);
  std::vector<double> importance(40, 1.0);
  for (std::size_t j = 0; j < 10; ++j) importance[j] = 100;
  double last = 1e9;
  for (const Index iterations : {0, 1, 5, 20}) {
    const auto sketch = graft::learn_sketch(w, {.bits = 2, .iterations = iterations}, importance);
    CHECK(sketch.loss <= last + 1e-12);
    last = sketch.loss;
  }
  const auto important = [&](const graft::Sketch<double>& sketch) {
    double error = 0;
    for (Index o = 0; o < 4; ++o)
      for (Index j = 0; j < 10; ++j) {
        const auto code = sketch.codes[static_cast<std::size_t>(o * 40 + j)];
        error += std::pow(w(o, j) - sketch.table[o * 4 + code], 2);
      }
    return error;
  };
  CHECK(important(graft::learn_sketch(w, {.bits = 2}, importance)) <
        important(graft::learn_sketch(w, {.bits = 2})));
  CHECK_THROWS_WITH(graft::learn_sketch(w, {.bits = 2}, std::vector<double>(3, 1.0)),
                    Catch::Contains("3 importances"));
}

TEST_CASE("Columns that make up for earlier errors lower the error of the outputs") {
  const auto w = checks::random_tensor<double>({6, 24}, 3);
  // Inputs that go together, so that one column can stand in for another.
  const auto few = checks::random_tensor<double>({200, 4}, 4);
  const auto mix = checks::random_tensor<double>({4, 24}, 5);
  auto x = checks::random_tensor<double>({200, 24}, 6, 0.1);
  for (Index m = 0; m < 200; ++m)
    for (Index j = 0; j < 24; ++j)
      for (Index k = 0; k < 4; ++k) x(m, j) += few(m, k) * mix(k, j);
  auto gram = BasicTensor<double>::zeros({24, 24});
  for (Index m = 0; m < 200; ++m)
    for (Index i = 0; i < 24; ++i)
      for (Index j = 0; j < 24; ++j) gram(i, j) += x(m, i) * x(m, j);
  const auto error = [&](const graft::Sketch<double>& sketch) {
    double sum = 0;
    for (Index o = 0; o < 6; ++o)
      for (Index i = 0; i < 24; ++i)
        for (Index j = 0; j < 24; ++j) {
          const auto off = [&](Index c) {
            return w(o, c) -
                   sketch.table[o * 4 + sketch.codes[static_cast<std::size_t>(o * 24 + c)]];
          };
          sum += off(i) * gram(i, j) * off(j);
        }
    return sum;
  };
  const auto inverse = graft::sketch_inverse_hessian(gram, 0.01);
  auto sketch = graft::learn_sketch(w, {.bits = 2}, graft::sketch_importance(inverse, 1));
  const double before = error(sketch);
  graft::compensate_errors(sketch, w, inverse);
  CHECK(error(sketch) < 0.9 * before);

  // A file holds codes that calibration decided; others are made again from the weight.
  const auto layer = checks::random_layer<double>(6, 24, 7);
  const auto site = checks::site_of(layer);
  graft::Calibration<double> calibration;
  calibration["proj"].covariance = gram;
  graft::StandaloneInit<double> init(1);
  init.context().calibration = &calibration;
  const SketchTuneConfig config{.bits = 2, .error_compensation = true};
  const graft::BasicSketchTune<double> calibrated(config, site, init.context());
  REQUIRE(calibrated.tensors().size() == 2);
  graft::StandaloneInit<double> load(2);
  load.context().loading = true;
  graft::BasicSketchTune<double> loaded(config, site, load.context());
  CHECK(loaded.tensors().size() == 1);
  CHECK(loaded.codes() != calibrated.codes());
  const graft::Shape shape{6, 24};
  loaded.before_load([&](std::string_view name) { return name == "codes" ? &shape : nullptr; });
  loaded.tensors()[1].index->values = calibrated.tensors()[1].index->values;
  loaded.after_load();
  CHECK(loaded.codes() == calibrated.codes());
  CHECK_THROWS_WITH(graft::BasicSketchTune<double>(config, layer), Catch::Contains("covariance"));
}

TEST_CASE("SketchTune refuses codes beyond its tables") {
  const auto layer = checks::random_layer<float>(2, 3, 1);
  SketchTune method({.bits = 1}, layer);
  CHECK_THROWS_WITH(method.set_codes({0, 1, 0, 1, 0, 2}), Catch::Contains("code 2"));
  CHECK_THROWS_WITH(method.set_codes({0, 1}), Catch::Contains("2 codes"));
  CHECK_THROWS_WITH(SketchTune({.bits = 9}, layer), Catch::Contains("bits 9"));
}
