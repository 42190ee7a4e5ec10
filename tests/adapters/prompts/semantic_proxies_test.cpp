#include "graft/adapters/prompts/semantic_proxies.hpp"

#include "adapters/prompts/tiny_vit.hpp"

using graft::Index;
using prompts::kLayers;
using prompts::kWidth;

namespace {

const graft::SemanticProxyConfig kConfig{.num_tokens = 2, .num_classes = 4};

}  // namespace

TEST_CASE("Proxy-Anchor loss: value and gradient") {
  const std::vector<std::int64_t> labels{2, 0, 2};
  const graft::BasicParameter<double> z(checks::random_tensor<double>({3, 5}, 1));
  const auto proxies = checks::random_tensor<double>({4, 5}, 2);
  const auto loss = [&](graft::BasicTape<double>& tape) {
    return graft::proxy_anchor_loss(tape.parameter(z), labels, proxies, 3, 0.2);
  };
  double near = 0, far = 0;
  for (Index c = 0; c < 4; ++c) {
    double own = 0, others = 0;
    for (Index i = 0; i < 3; ++i) {
      double dot = 0, a = 0, b = 0;
      for (Index j = 0; j < 5; ++j) {
        dot += z.value()(i, j) * proxies(c, j);
        a += z.value()(i, j) * z.value()(i, j);
        b += proxies(c, j) * proxies(c, j);
      }
      const double cosine = dot / std::sqrt(a * b);
      if (labels[static_cast<std::size_t>(i)] == c)
        own += std::exp(-3 * (cosine - 0.2));
      else
        others += std::exp(3 * (cosine + 0.2));
    }
    near += std::log(1 + own) / 2;
    far += std::log(1 + others) / 4;
  }
  graft::BasicTape<double> tape;
  CHECK(loss(tape).item() == Approx(near + far));
  CHECK(graft::gradient_check(loss, {z}).relative_error < 1e-7);
}

TEST_CASE("Semantic proxies: count, prompts of classes, accumulation") {
  prompts::ImageSetup<double> setup(kConfig);
  CHECK(setup.set().trainable_elements() == (kLayers + 4) * 2 * kWidth);
  graft::SemanticProxies<double>* part = nullptr;
  for (const auto& placed : setup.set().parts())
    if (auto* p = dynamic_cast<graft::SemanticProxies<double>*>(placed.part.get())) part = p;
  REQUIRE(part != nullptr);
  setup.randomize();
  const auto plain = setup.logits();
  const std::vector<std::int64_t> labels{3, 1};
  CHECK(checks::relative_error(part->with_classes(labels, [&] { return setup.logits(); }), plain) >
        1e-6);
  CHECK(checks::relative_error(setup.logits(), plain) == 0);
  const auto before = part->proxies().clone();
  const auto s = checks::random_tensor<double>({2, kWidth}, 5);
  part->accumulate(s, labels);
  CHECK(part->proxies()(3, 1) == Approx(0.9 * before(3, 1) + 0.1 * s(0, 1)));
  CHECK(part->proxies()(0, 1) == before(0, 1));
  CHECK_THROWS_AS(part->accumulate(s, std::vector<std::int64_t>{0, 4}), graft::ValueError);
  CHECK_THROWS_WITH(setup.adapters.add("q", graft::SemanticProxyConfig{}),
                    Catch::Contains("num_classes 0"));
}
