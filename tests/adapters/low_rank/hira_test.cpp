#include "graft/adapters/low_rank/hira.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicHiRA;
using graft::HiRA;

TEST_CASE("HiRA begins as the identity, differentiates and merges") {
  CHECK(checks::change_at_init<BasicHiRA<double>>({.rank = 3}) < 1e-13);
  CHECK(checks::gradient_error<BasicHiRA<double>>({.rank = 3}, 7, 13) < 1e-7);
  CHECK(checks::gradient_error<BasicHiRA<double>>({.rank = 3, .dropout = 0.3}, 7, 13) < 1e-7);
  CHECK(checks::merge_error<HiRA>({.rank = 3}) < 1e-5);
  CHECK(checks::trained<HiRA>({.rank = 3}, 10, 12) == 3 * (10 + 12));
  CHECK_THROWS_WITH(checks::trained<HiRA>({.rank = 0}), Catch::Contains("rank 0"));
  CHECK_THROWS_WITH(checks::trained<HiRA>({.init_weights = "pissa"}), Catch::Contains("gaussian"));
}

TEST_CASE("HiRA above another adapter multiplies the frozen weight alone") {
  const auto layer = checks::random_layer<double>(6, 8, 1);
  const auto first = checks::make<BasicHiRA<double>>({.rank = 2}, checks::site_of(layer));
  const auto second = checks::make<BasicHiRA<double>>({.rank = 3}, checks::site_of(layer));
  checks::randomize(first);
  checks::randomize(second, 0.3, 77);
  graft::BasicLinearSite<double> site("proj", layer);
  const auto a = graft::linear_part(first), b = graft::linear_part(second);
  site.adapters() = {{"a", a}, {"b", b}};
  site.activate({"a", "b"});
  graft::BasicTape<double> tape({.gradients = false});
  const auto x = checks::random_tensor<double>({3, 8}, 2);
  const auto both = site(tape.constant(x)).value();
  const auto base = checks::base_output(layer, x), ya = checks::output(first, layer, x),
             yb = checks::output(second, layer, x);
  for (graft::Index i = 0; i < both.size(); ++i)
    CHECK(both[i] == Approx(ya[i] + yb[i] - base[i]).margin(1e-12));
}

TEST_CASE("HiRA on an embedding begins as the identity and differentiates") {
  const auto table = checks::random_tensor<double>({11, 6}, 1);
  graft::EmbeddingSiteInfo<double> site{"emb", 11, 6, -1, [&] { return table; }};
  graft::TorchGenerator generator(1);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  const graft::BasicHiRAEmbedding<double> method({.rank = 3}, site, context);
  const graft::BasicEmbeddingTable<double> frozen(table);
  const graft::BasicEmbeddingView<double> view(frozen, {});
  const std::vector<std::int32_t> ids{3, 0, 10, 3};
  {
    graft::BasicTape<double> tape({.gradients = false});
    CHECK(checks::relative_error(method.apply(view, tape, ids).value(), frozen.lookup(ids)) == 0);
  }
  checks::randomize(method);
  const auto weights = checks::random_tensor<double>({4, 6}, 5);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              return sum(mul(method.apply(view, tape, ids), tape.constant(weights)));
            },
            {method.tensors()[0].parameter, method.tensors()[1].parameter})
            .relative_error < 1e-7);
}
