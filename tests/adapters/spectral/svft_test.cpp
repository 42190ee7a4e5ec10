#include "graft/adapters/spectral/svft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/spectral/svfit.hpp"

using graft::BasicSVFit;
using graft::BasicSVFT;
using graft::BasicTensor;
using graft::Index;
using graft::SVFit;
using graft::SVFitConfig;
using graft::SVFT;
using graft::SVFTConfig;

TEST_CASE("SVFT of every pattern begins as the identity, differentiates and merges") {
  for (const char* pattern : {"plain", "banded", "random", "top_k"})
    for (const bool gate : {false, true}) {
      INFO(pattern);
      const SVFTConfig config{.pattern = pattern, .off_diag = 2, .rank = 7, .gate = gate};
      CHECK(checks::change_at_init<BasicSVFT<double>>(config, 11, 11) == 0);
      CHECK(checks::gradient_error<BasicSVFT<double>>(config, 11, 11) < 1e-7);
      CHECK(checks::merge_error<SVFT>(config, 11, 11) < 1e-5);
      const Index k = config.pattern == "plain" ? 7 : 7 * 5 - 2 * 3;
      CHECK(checks::trained<SVFT>(config, 11, 11) == k + (gate ? 1 : 0));
    }
}

TEST_CASE("SVFT can drop or replace what is beyond its rank") {
  for (const bool fill : {false, true})
    for (const char* pattern : {"plain", "banded"}) {
      const SVFTConfig config{
          .pattern = pattern, .off_diag = 1, .rank = 4, .truncate = true, .fill = fill};
      const double change = checks::change_at_init<BasicSVFT<double>>(config);
      CHECK(change > 1e-3);
      CHECK(change < 1);
      CHECK(checks::gradient_error<BasicSVFT<double>>(config) < 1e-7);
      CHECK(checks::merge_error<SVFT>(config) < 1e-5);
    }
  CHECK(checks::trained<SVFT>({.rank = 4, .fill = true}) == 10);
  // Nothing is beyond a full rank.
  CHECK(checks::change_at_init<BasicSVFT<double>>({.truncate = true, .fill = true}) == 0);
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto method =
      checks::make<BasicSVFT<double>>({.rank = 4, .fill = true}, checks::site_of(layer));
  for (const auto& t : method.tensors()) {
    if (t.name.find("fill") == std::string::npos) continue;
    CHECK_FALSE(t.parameter.trainable());
    const auto f = t.parameter.value();
    CHECK(f.rows() == (t.name == "svft_fill_U" ? 10 : 12));
    CHECK(checks::relative_error(graft::detail::product(f, f, 1.0, true),
                                 BasicTensor<double>::identity(6)) < 1e-13);
  }
}

TEST_CASE("SVFT with the official init begins at a change of norm 0.7") {
  const graft::BasicDenseLinear<double> layer(checks::random_tensor<double>({40, 50}, 1));
  const auto method = checks::make<BasicSVFT<double>>(
      {.pattern = "banded", .off_diag = 3, .init = "official"}, checks::site_of(layer));
  const auto merged = merge_linear(layer, method).dense_weight();
  double square = 0;
  for (Index i = 0; i < merged.size(); ++i) {
    const double d = merged[i] - layer.dense_weight()[i];
    square += d * d;
  }
  CHECK(std::sqrt(square) == Approx(0.707).margin(0.12));
}

TEST_CASE("A singular value that SVFT or SVFit takes to zero leaves the weight") {
  const auto layer = checks::random_layer<double>(6, 9, 2);
  const auto d = graft::svd(layer.dense_weight());
  auto expected = layer.dense_weight().clone();
  for (Index o = 0; o < 6; ++o)
    for (Index i = 0; i < 9; ++i) expected(o, i) -= d.u(o, 1) * d.s[1] * d.v(i, 1);
  const auto svft = checks::make<BasicSVFT<double>>({}, checks::site_of(layer));
  auto m = BasicTensor<double>::zeros({6});
  m[1] = -d.s[1];
  svft.tensors()[0].parameter.assign(m);
  CHECK(checks::relative_error(merge_linear(layer, svft).dense_weight(), expected) < 1e-13);
  const auto svfit = checks::make<BasicSVFit<double>>({.rank = 3}, checks::site_of(layer));
  auto sigma = svfit.tensors()[0].parameter.value().clone();
  CHECK(sigma[1] == Approx(d.s[1]));
  sigma[1] = 0;
  svfit.tensors()[0].parameter.assign(sigma);
  CHECK(checks::relative_error(merge_linear(layer, svfit).dense_weight(), expected) < 1e-13);
}

TEST_CASE("SVFT's signs and its top-k positions do not depend on the decomposition") {
  const auto w = checks::random_tensor<double>({9, 9}, 3);
  const auto d = graft::detail::signed_svd(w);
  for (Index j = 0; j < 9; ++j) {
    double largest = 0;
    for (Index i = 0; i < 9; ++i)
      if (std::abs(d.u(i, j)) > std::abs(largest)) largest = d.u(i, j);
    CHECK(largest > 0);
  }
  const graft::BasicDenseLinear<double> layer{BasicTensor<double>(w)};
  const auto method =
      checks::make<BasicSVFT<double>>({.pattern = "top_k", .off_diag = 1}, checks::site_of(layer));
  const auto alignment = graft::detail::product(d.u, d.v, 1.0, true);
  const auto places = method.tensors()[1].index->values;
  const auto k = places.size() / 2;
  REQUIRE(k == 25);
  double smallest = 1;
  for (std::size_t i = 0; i < k; ++i)
    smallest = std::min(smallest, alignment(places[i], places[k + i]));
  Index above = 0;
  for (const double a : alignment) above += a >= smallest ? 1 : 0;
  CHECK(above == 25);
}

TEST_CASE("SVFT reads files of the plain pattern without positions") {
  const auto layer = checks::random_layer<double>(6, 9, 2);
  auto method = checks::make<BasicSVFT<double>>({}, checks::site_of(layer));
  CHECK(method.tensors().size() == 2);
  const graft::Shape six{6};
  method.before_load([&](std::string_view name) { return name == "svft_M" ? &six : nullptr; });
  CHECK(method.tensors().size() == 1);
  auto random = checks::make<BasicSVFT<double>>({.pattern = "random"}, checks::site_of(layer));
  random.tensors()[1].index->values[3] = 6;
  CHECK_THROWS_WITH(random.after_load(), Catch::Contains("outside"));
}

TEST_CASE("SVFit trains leading singular values, differentiates and merges") {
  for (const auto& config : {SVFitConfig{.rank = 5}, SVFitConfig{.energy = 0.7},
                             SVFitConfig{.rank = 5, .keep_residual = false}}) {
    if (config.keep_residual) CHECK(checks::change_at_init<BasicSVFit<double>>(config) == 0);
    CHECK(checks::gradient_error<BasicSVFit<double>>(config) < 1e-7);
    CHECK(checks::merge_error<SVFit>(config) < 1e-5);
  }
  CHECK(checks::trained<SVFit>({.rank = 5}) == 5);
  auto w = BasicTensor<double>::zeros({4, 3});
  w(0, 0) = 3;
  w(1, 1) = 2;
  w(2, 2) = 1;
  CHECK(graft::svfit_rank(w, 9.0 / 14) == 1);
  CHECK(graft::svfit_rank(w, 0.65) == 2);
  CHECK(graft::svfit_rank(w) == 3);
}

TEST_CASE("SVFT and SVFit refuse what cannot be") {
  CHECK_THROWS_WITH(checks::trained<SVFT>({.pattern = "dense"}), Catch::Contains("dense"));
  CHECK_THROWS_WITH(checks::trained<SVFT>({.rank = 11}), Catch::Contains("at most 10"));
  CHECK_THROWS_WITH(checks::trained<SVFT>({.pattern = "top_k"}), Catch::Contains("square"));
  CHECK_THROWS_WITH(checks::trained<SVFT>({.pattern = "banded", .off_diag = 10}),
                    Catch::Contains("off_diag 10"));
  CHECK_THROWS_WITH(checks::trained<SVFit>({.rank = 11}), Catch::Contains("at most 10"));
  CHECK_THROWS_WITH(checks::trained<SVFit>({.energy = 0}), Catch::Contains("energy"));
}
