#include "graft/adapters/low_rank/adamss.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::AdaMSS;
using graft::BasicAdaMSS;
using graft::Index;

TEST_CASE("AdaMSS begins as the identity, differentiates and merges into weight and bias") {
  const graft::AdaMSSConfig config{.rank = 6, .subspaces = 3, .subspace_rank = 2};
  CHECK(checks::change_at_init<BasicAdaMSS<double>>(config) < 1e-13);
  CHECK(checks::gradient_error<BasicAdaMSS<double>>(config, 10, 12) < 1e-7);
  CHECK(checks::merge_error<AdaMSS>(config) < 1e-5);
  CHECK(checks::merge_error<AdaMSS>(config, 10, 12, false) < 1e-5);
  auto random = config;
  random.init_weights = nullptr;
  CHECK(checks::change_at_init<BasicAdaMSS<double>>(random) > 1e-6);
  CHECK_THROWS_WITH(checks::trained<AdaMSS>({.rank = 0}), Catch::Contains("r 0"));
}

TEST_CASE("AdaMSS has orthonormal rows in A and every row of the weight in one cluster") {
  const auto layer = checks::random_layer<double>(11, 14, 1);
  for (const bool dynamic : {false, true}) {
    const auto m = checks::make<BasicAdaMSS<double>>(
        {.rank = 7, .subspaces = 4, .subspace_rank = 3, .use_dynamic_rank = dynamic},
        checks::site_of(layer));
    Index rows = 0;
    for (Index s = 0; s < m.subspaces(); ++s) {
      const auto a = m.a(s).value();
      rows += m.b(s).shape()[0];
      for (Index i = 0; i < a.rows(); ++i)
        for (Index j = 0; j < a.rows(); ++j) {
          double dot = 0;
          for (Index k = 0; k < a.cols(); ++k) dot += a(i, k) * a(j, k);
          CHECK(dot == Approx(i == j ? 1 : 0).margin(1e-12));
        }
    }
    CHECK(rows == 11);
    auto places = m.places();
    std::sort(places.begin(), places.end());
    for (Index i = 0; i < 11; ++i) CHECK(places[static_cast<std::size_t>(i)] == i);
  }
}

TEST_CASE("AdaMSS stops training all but the best subspaces of the model") {
  const graft::AdaMSSConfig config{.rank = 6,
                                   .subspaces = 4,
                                   .use_asa = true,
                                   .target_subspaces = 3,
                                   .init_warmup = 2,
                                   .final_warmup = 10,
                                   .mask_interval = 4};
  const auto layer = checks::random_layer<float>(10, 12, 1);
  std::vector<graft::PlacedPart<float>> parts;
  for (const char* name : {"a", "b"})
    parts.push_back(
        {name, graft::linear_part(checks::make<AdaMSS>(config, checks::site_of(layer)))});
  graft::AdaMSSProcedure<float> procedure(config, parts), resumed(config, parts);
  CHECK(procedure.target_at(2) == 8);
  CHECK(procedure.target_at(10) == 3);
  const auto trained = [&] {
    Index count = 0;
    for (auto& p : parts)
      for (auto& t : p.part->tensors())
        count += t.name.starts_with("adamss_A") && t.parameter.trainable() ? 1 : 0;
    return count;
  };
  unsigned seed = 5;
  // Of clipped gradients the scaled ones count.
  graft::AdaMSSProcedure<float> clipped(config, parts), small(config, parts);
  graft::StepInfo info{2, 20, 0.1};
  const auto draw = [&](float size) {
    for (auto& p : parts)
      for (auto& t : p.part->tensors())
        t.parameter.mutable_grad() = checks::random_tensor<float>(t.parameter.shape(), seed, size);
  };
  draw(0.25F);
  small.after_step(info);
  draw(1);
  info.gradient_scale = 0.25;
  clipped.after_step(info);
  CHECK(clipped.state() == small.state());
  for (Index step = 1; step <= 4; ++step) {
    for (auto& p : parts)
      for (auto& t : p.part->tensors()) {
        t.parameter.assign(checks::random_tensor<float>(t.parameter.shape(), ++seed));
        t.parameter.mutable_grad() = checks::random_tensor<float>(t.parameter.shape(), ++seed);
      }
    procedure.after_step({step, 20, 0.1});
    if (step == 3) {
      const auto state = procedure.state();
      resumed.set_state(state);
      CHECK(resumed.state() == state);
    }
  }
  // int(3 + 5 · (1 − 2/8)³) = 5, and the threshold itself drops out.
  CHECK(trained() == 4);
}
