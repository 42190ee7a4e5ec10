#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/selection/diff_pruning.hpp"
#include "graft/adapters/selection/losia.hpp"
#include "graft/adapters/selection/perp.hpp"
#include "graft/adapters/selection/pst.hpp"
#include "graft/adapters/selection/ramt.hpp"

TEST_CASE("masks on weights begin as the identity and merge") {
  CHECK(checks::change_at_init<graft::BasicRAMT<double>>({}) == 0);
  CHECK(checks::change_at_init<graft::BasicPST<double>>({}) == 0);
  CHECK(checks::change_at_init<graft::BasicPERP<double>>({}) < 1e-12);
  CHECK(checks::change_at_init<graft::BasicDiffPruning<double>>({}) == 0);
  CHECK(checks::merge_error<graft::RAMT>({}) < 1e-5);
  graft::PSTConfig sparse;
  sparse.sparsity = 0.4;
  CHECK(checks::merge_error<graft::PST>(sparse) < 1e-5);
  CHECK(checks::merge_error<graft::DiffPruning>({}) < 1e-5);
  CHECK(checks::trained<graft::PST>({}, 10, 12) == 16 * 22 + 22);
  CHECK(checks::trained<graft::DiffPruning>({}, 10, 12) == 240);
}

TEST_CASE("gradients that are no straight-through ones are right") {
  CHECK(checks::gradient_error<graft::BasicPERP<double>>({}, 7, 13) < 1e-8);
  graft::PERPConfig scale;
  scale.lora_type = "scale_lora";
  CHECK(checks::gradient_error<graft::BasicPERP<double>>(scale, 7, 13) < 1e-8);
  CHECK(checks::change_at_init<graft::BasicPERP<double>>(scale) < 1e-12);
  CHECK(checks::gradient_error<graft::BasicLoSiA<double>>({.rank_factor = 0.5}, 8, 12) < 1e-8);
  CHECK(checks::change_at_init<graft::BasicLoSiA<double>>({}) < 1e-12);
  CHECK(checks::merge_error<graft::LoSiA>({.rank_factor = 0.5}) < 1e-5);
  CHECK(checks::trained<graft::LoSiA>({.rank_factor = 0.25}, 10, 12) == 6);
}

TEST_CASE("the merge of lora_prune keeps the zeros of a pruned weight") {
  auto w = checks::random_tensor<float>({6, 8}, 1);
  for (graft::Index i = 0; i < w.size(); i += 3) w[i] = 0;
  const graft::DenseLinear layer(w);
  graft::PERPConfig config;
  config.lora_type = "lora_prune";
  const auto method = checks::make<graft::PERP>(config, checks::site_of(layer));
  checks::randomize(method);
  const auto merged = merge_linear(layer, method).dense_weight();
  for (graft::Index i = 0; i < w.size(); i += 3) CHECK(merged[i] == 0);
  CHECK(checks::relative_error(merged, w) > 0.01);
}

TEST_CASE("PST's sparsity rises from one warm-up to the other") {
  const graft::PSTConfig config;
  double last = -1;
  for (int t = 0; t <= 40; ++t) {
    const double s = config.sparsity_at(t, 40);
    CHECK(s >= last);
    last = s;
  }
  CHECK(config.sparsity_at(4, 40) == 0);
  CHECK(config.sparsity_at(29, 40) == Approx(0.9));
}

TEST_CASE("the best block of a score is at least as good as each greedy one") {
  const auto score = checks::random_tensor<double>({9, 7}, 4);
  std::vector<double> totals;
  const auto subnet = graft::selection::localise(score, 3, 2, &totals);
  double sum = 0;
  for (const auto r : subnet.rows)
    for (const auto c : subnet.columns) sum += score[r * 7 + c];
  REQUIRE(totals.size() == 3);
  for (const double t : totals) CHECK(sum >= t - 1e-12);
}
