#include "graft/adapters/sparse/frod.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicFRoD;
using graft::FRoD;
using graft::FRoDConfig;
using graft::Index;

TEST_CASE("FRoD begins as the weight itself, differentiates and merges") {
  const FRoDConfig config{.sparse_rate = 0.1};
  for (const Index out :
       {9, 12, 17}) {  // with fewer rows than columns the basis is that of the SVD
    INFO(out);
    CHECK(checks::change_at_init<BasicFRoD<double>>(config, out, 12) < 1e-10);
    CHECK(checks::gradient_error<BasicFRoD<double>>(config, out, 12) < 1e-7);
    CHECK(checks::merge_error<FRoD>(config, out, 12) < 1e-5);
  }
  CHECK(checks::trained<FRoD>(config, 17, 12) == 12 + 14);
  CHECK(checks::trained<FRoD>({.sparse_rate = 0}, 17, 12) == 12);
  CHECK(checks::trained<FRoD>({.sparse_rate = 1e-9}, 17, 12) == 12 + 1);
  CHECK_THROWS_WITH(checks::trained<FRoD>({.sparse_rate = 1.5}), Catch::Contains("sparse_rate"));
}

TEST_CASE("FRoD knows the role and the layer of a path") {
  using graft::detail::frod_category, graft::detail::frod_layer;
  CHECK(frod_category("model.layers.3.self_attn.q_proj") == "self_attn_q_proj");
  CHECK(frod_category("encoder.layer.0.attention.output.dense") == "attention_output");
  CHECK(frod_category("encoder.layer.0.output.dense") == "output_dense");
  CHECK(frod_category("h.2.c_attn") == "c_attn");
  CHECK(frod_category("proj") == "proj");
  CHECK(frod_layer("a.5.layers.3.q", 9) == 3);
  CHECK(frod_layer("encoder.layer.11.query", 9) == 11);
  CHECK(frod_layer("classifier.dense", 9) == 9);
}

TEST_CASE("FRoD's positions are distinct and off the diagonal") {
  graft::TorchGenerator generator(3);
  const auto index = graft::detail::off_diagonal(6, 0.9, &generator);
  REQUIRE(index.shape[1] == 30);
  // as PEFT takes them with torch's permutation of the seed 3
  const std::int64_t first[4][2] = {{3, 1}, {5, 2}, {3, 5}, {4, 5}};
  for (std::size_t k = 0; k < 4; ++k) {
    CHECK(index.values[k] == first[k][0]);
    CHECK(index.values[30 + k] == first[k][1]);
  }
  std::vector<std::int64_t> places;
  for (std::size_t k = 0; k < 30; ++k) {
    CHECK(index.values[k] != index.values[30 + k]);
    places.push_back(index.values[k] * 6 + index.values[30 + k]);
  }
  std::sort(places.begin(), places.end());
  CHECK(std::unique(places.begin(), places.end()) == places.end());
}
