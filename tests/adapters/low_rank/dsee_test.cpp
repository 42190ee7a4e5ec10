#include "graft/adapters/low_rank/dsee.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using DSEE = graft::BasicDSEE<double>;

TEST_CASE("DSEE begins as the identity, has right gradients and merges") {
  graft::DSEEConfig config;
  config.rank = 3;
  config.num_sparse = 7;
  for (const char* support : {"decomposed", "magnitude", "random"}) {
    config.support = support;
    CHECK(checks::change_at_init<DSEE>(config) < 1e-12);
  }
  CHECK(checks::gradient_error<DSEE>(config) < 1e-7);
  CHECK(checks::merge_error<graft::DSEE>(config) < 1e-5);
  CHECK(checks::trained<graft::DSEE>(config, 10, 12) == 3 * 22 + 7);
  config.num_sparse = 0;
  CHECK(checks::gradient_error<DSEE>(config) < 1e-7);
  config.num_sparse = 121;
  CHECK_THROWS_WITH(checks::trained<graft::DSEE>(config, 10, 12),
                    Catch::Contains("num_sparse 121"));
  config.support = "all";
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("support 'all'"));
}

TEST_CASE("a pruned layer works without the smallest weights, also merged") {
  graft::DSEEConfig config;
  config.rank = 3;
  config.num_sparse = 5;
  config.prune_ratio = 0.4;
  CHECK(checks::change_at_init<DSEE>(config) > 0.01);
  CHECK(checks::gradient_error<DSEE>(config) < 1e-7);
  CHECK(checks::merge_error<graft::DSEE>(config) < 1e-5);
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto method = checks::make<DSEE>(config, checks::site_of(layer));
  Index zeros = 0;
  const auto merged = merge_linear(layer, method);
  for (const double w : merged.dense_weight()) zeros += w == 0 ? 1 : 0;
  CHECK(zeros == 12);
}

TEST_CASE("the decomposition leaves less than its threshold, and nothing below it is sparse") {
  graft::DSEEConfig config;
  config.rank_step = 1;
  config.rounds = 3;
  config.inner_steps = 4;
  config.threshold = 0.5;
  // Rank two, and some large entries.
  auto w = graft::detail::product(checks::random_tensor<double>({20, 2}, 1, 0.3),
                                  checks::random_tensor<double>({2, 15}, 2, 0.3));
  for (const Index place : {7, 100, 222}) w[place] += 4;
  const auto d = graft::dsee_decomposition(w, config, checks::random_tensor<double>({1, 15}, 3));
  CHECK(d.rank == 3);
  for (Index i = 0; i < w.size(); ++i)
    CHECK(std::abs(w[i] - d.low_rank[i] - d.sparse[i]) < config.threshold);
  Index entries = 0;
  for (const double v : d.sparse) {
    if (v == 0) continue;
    ++entries;
    CHECK(std::abs(v) >= config.threshold);
  }
  CHECK(entries > 0);
  // The rounds end before the rank fills a small layer.
  config.rounds = 100;
  CHECK(graft::dsee_decomposition(checks::random_tensor<double>({4, 6}, 4), config,
                                  checks::random_tensor<double>({1, 6}, 5))
            .rank == 3);
}

TEST_CASE("masks leave out the smallest of all, heads the least important") {
  const auto a = graft::BasicTensor<double>::from({1.0, -5.0, 0.5, 2.0}, {2, 2}),
             b = graft::BasicTensor<double>::from({0.1, -0.2}, {1, 2});
  using Mask = std::vector<std::int64_t>;
  CHECK(graft::prune_masks(std::vector{a}, 0.5)[0] == Mask{0, 1, 0, 1});
  const auto both = graft::prune_masks(std::vector{a, b}, 0.5);
  CHECK(both[0] == Mask{1, 1, 0, 1});
  CHECK(both[1] == Mask{0, 0});
  // Half an entry too much is rounded to the even number.
  const auto five = graft::BasicTensor<double>::from({1.0, 2.0, 3.0, 4.0, 5.0}, {1, 5});
  CHECK(graft::prune_masks(std::vector{five}, 0.1)[0] == Mask{1, 1, 1, 1, 1});
  CHECK(graft::prune_masks(std::vector{five}, 0.3)[0] == Mask{0, 0, 1, 1, 1});
  graft::DSEEConfig config;
  config.head_prune_ratio = 0.5;
  CHECK(graft::dsee_removed_heads(a.reshape({4}), config) == Mask{0, 2});
  graft::BasicTape<double> tape;
  CHECK(graft::dsee_head_loss(tape.constant(a), config).item() == Approx(8.5e-4));
}
