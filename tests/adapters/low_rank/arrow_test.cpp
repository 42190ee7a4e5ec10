#include "graft/adapters/low_rank/arrow.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicArrow;
using graft::BasicTensor;
using graft::ConfigValue;
using graft::Index;
using graft::LowRankTerm;

namespace {

LowRankTerm<double> term(unsigned seed) {
  return {graft::BasicParameter<double>(checks::random_tensor<double>({2, 6}, seed)),
          graft::BasicParameter<double>(checks::random_tensor<double>({5, 2}, seed + 100)), 1.5};
}
graft::LoRAConfig config_of(ConfigValue::Map arrow) {
  graft::LoRAConfig config{.rank = 2};
  config.arrow_config = std::move(arrow);
  return config;
}

}  // namespace

TEST_CASE("a prototype is the direction that an expert amplifies most") {
  const auto t = term(1);
  const auto d = graft::svd(graft::detail::product(t.b.value(), t.a.value()));
  const auto v = graft::arrow_prototype(t.a.value(), t.b.value());
  double cosine = 0;
  for (Index i = 0; i < 6; ++i) cosine += v[i] * d.v(i, 0);
  CHECK(std::abs(cosine) == Approx(1));
  const auto iterated = graft::arrow_prototype(t.a.value(), t.b.value(), Index{3});
  CHECK(graft::kernels::dot(iterated.data(), iterated.data(), 6) == Approx(1));
}

TEST_CASE("Arrow mixes the experts that a token is most like") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const std::vector<LowRankTerm<double>> tasks{term(1), term(2), term(3)}, general{term(4)};
  for (const bool subtract : {false, true}) {
    auto router = checks::make<BasicArrow<double>>(
        config_of({{"top_k", 2}, {"router_temperature", 0.7}, {"use_gks", subtract}}),
        checks::site_of(layer));
    router.set_experts(tasks, general);
    const auto x = checks::random_tensor<double>({4, 6}, 9);
    auto expected = checks::base_output(layer, x).clone();
    for (Index t = 0; t < 4; ++t) {
      double scores[3];
      for (Index e = 0; e < 3; ++e)
        scores[e] =
            std::abs(graft::kernels::dot(x.data() + t * 6, router.prototypes().data() + e * 6, 6)) /
            0.7;
      const Index least = std::min_element(scores, scores + 3) - scores;
      double total = 0;
      for (Index e = 0; e < 3; ++e) total += e == least ? 0 : std::exp(scores[e]);
      for (Index e = 0; e < 3; ++e) {
        if (e == least) continue;
        for (Index k = 0; k < 2; ++k) {
          double h = 0;
          const auto factor = [&](auto part) {
            const auto& task = tasks[static_cast<std::size_t>(e)];
            return part(task) - (subtract ? part(general[0]) : 0.0);
          };
          for (Index i = 0; i < 6; ++i)
            h += x(t, i) * factor([&](const auto& p) { return p.a.value()(k, i); });
          for (Index o = 0; o < 5; ++o)
            expected(t, o) += 1.5 * std::exp(scores[e]) / total * h *
                              factor([&](const auto& p) { return p.b.value()(o, k); });
        }
      }
    }
    CHECK(checks::relative_error(checks::output(router, layer, x), expected) < 1e-12);
  }
}

TEST_CASE("Arrow refuses experts of several ranks, and none") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  auto router = checks::make<BasicArrow<double>>(config_of({{"top_k", 2}}), checks::site_of(layer));
  auto other = term(2);
  other.a = graft::BasicParameter<double>(checks::random_tensor<double>({3, 6}, 2));
  CHECK_THROWS_WITH(router.set_experts({term(1), other}, {}), Catch::Contains("one rank"));
  CHECK_THROWS_WITH(router.set_experts({}, {}), Catch::Contains("no expert"));
  CHECK_THROWS_WITH(checks::output(router, layer, checks::random_tensor<double>({2, 6}, 1)),
                    Catch::Contains("no experts"));
}

TEST_CASE("Arrow with a top_k of -1 mixes all experts, and refuses other numbers below 1") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto x = checks::random_tensor<double>({3, 6}, 9);
  const auto output = [&](Index count) {
    auto router =
        checks::make<BasicArrow<double>>(config_of({{"top_k", count}}), checks::site_of(layer));
    router.set_experts({term(1), term(2), term(3)}, {});
    return checks::output(router, layer, x);
  };
  CHECK(checks::relative_error(output(-1), output(3)) == 0);
  CHECK(checks::relative_error(output(-1), output(2)) > 1e-3);
  CHECK_THROWS_WITH(output(0), Catch::Contains("-1 for all"));
}
