#include "graft/adapters/low_rank/tinylora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTinyLoRA;
using graft::Index;
using graft::TinyLoRA;

TEST_CASE("TinyLoRA begins as the identity, differentiates and merges") {
  CHECK(checks::change_at_init<BasicTinyLoRA<double>>({.rank = 3, .vector_length = 5}) < 1e-13);
  CHECK(checks::change_at_init<BasicTinyLoRA<double>>(
            {.rank = 3, .vector_length = 5, .init_weights = "uniform"}) > 1e-6);
  CHECK(checks::gradient_error<BasicTinyLoRA<double>>({.rank = 3, .vector_length = 5}, 7, 13) <
        1e-7);
  CHECK(checks::merge_error<TinyLoRA>({.rank = 3, .vector_length = 5}) < 1e-5);
  CHECK(checks::trained<TinyLoRA>({.rank = 3, .vector_length = 5}) == 5);
  CHECK_THROWS_WITH(checks::trained<TinyLoRA>({.weight_tying = 1.5}), Catch::Contains("1.5"));
}

TEST_CASE("TinyLoRA's update stays between the leading singular vectors") {
  const auto layer = checks::random_layer<double>(6, 9, 1);
  const auto method =
      checks::make<BasicTinyLoRA<double>>({.rank = 2, .vector_length = 4}, checks::site_of(layer));
  checks::randomize(method);
  auto w = merge_linear(layer, method).dense_weight();
  for (Index i = 0; i < w.size(); ++i) w[i] -= layer.dense_weight()[i];
  const auto d = graft::svd(layer.dense_weight());
  for (Index k = 2; k < 6; ++k)
    for (Index i = 0; i < 9; ++i) {
      double along = 0;
      for (Index o = 0; o < 6; ++o) along += d.u(o, k) * w(o, i);
      CHECK(std::abs(along) < 1e-12);
    }
}

TEST_CASE("TinyLoRA draws the same projections in double precision as in single") {
  const graft::TinyLoRAConfig config{.rank = 3, .vector_length = 4};
  const auto f =
      checks::make<TinyLoRA>(config, checks::site_of(checks::random_layer<float>(6, 9, 1)))
          .tensors();
  const auto d = checks::make<BasicTinyLoRA<double>>(
                     config, checks::site_of(checks::random_layer<double>(6, 9, 1)))
                     .tensors();
  REQUIRE(f[3].name == "tinylora_P");
  for (Index i = 0; i < f[3].parameter.size(); ++i)
    CHECK(d[3].parameter.value()[i] == static_cast<double>(f[3].parameter.value()[i]));
  // torch's normal numbers of the seed 42
  CHECK(f[3].parameter.value()[0] == Approx(1.1125050783157349));
  CHECK(f[3].parameter.value()[7] == Approx(-0.9264549016952515));
  CHECK(f[3].parameter.value()[35] == Approx(1.3086901903152466));
}

TEST_CASE("TinyLoRA ties the vectors of neighbouring layers") {
  graft::TorchGenerator generator(1);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  const auto layer = checks::random_layer<double>(4, 5, 1);
  std::vector<std::pair<std::string, graft::Shape>> all;
  for (int i = 0; i < 5; ++i) all.emplace_back(graft::concat("l", i), graft::Shape{4, 5});
  std::vector<std::string> names;
  for (int i = 0; i < 5; ++i) {
    auto site = checks::site_of(layer, graft::concat("l", i));
    site.all_sites = all;
    names.push_back(BasicTinyLoRA<double>({.weight_tying = 0.5}, site, context).tensors()[0].name);
  }
  // 5 · ½ rounds to 2 groups of 5 / 2 layers.
  CHECK(names == std::vector<std::string>{"tinylora_v.0", "tinylora_v.0", "tinylora_v.1",
                                          "tinylora_v.1", "tinylora_v.1"});
}

TEST_CASE("TinyLoRA on an embedding differentiates") {
  const auto table = checks::random_tensor<double>({11, 6}, 1);
  graft::EmbeddingSiteInfo<double> site{"emb", 11, 6, -1, [&] { return table; }};
  graft::TorchGenerator generator(1);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  const graft::BasicTinyLoRAEmbedding<double> method({.rank = 3, .vector_length = 4}, site,
                                                     context);
  const graft::BasicEmbeddingTable<double> frozen(table);
  const graft::BasicEmbeddingView<double> view(frozen, {});
  const std::vector<std::int32_t> ids{3, 0, 10, 3};
  const auto weights = checks::random_tensor<double>({4, 6}, 5);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              return sum(mul(method.apply(view, tape, ids), tape.constant(weights)));
            },
            {method.tensors()[0].parameter})
            .relative_error < 1e-7);
}
