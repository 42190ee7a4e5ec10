#include "graft/adapters/bottleneck/iaa.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/compose/adapter_model.hpp"

namespace {

using graft::Index;
using Tensor = graft::BasicTensor<double>;

/// Blocks x ← site(x, tanh(x)) without feed-forward sublayers.
struct Blocks {
  std::vector<graft::BasicHiddenSite<double>> sites;
  graft::BasicSiteTable<double> table;
  graft::MethodRegistry<double> registry;
  std::unique_ptr<graft::BasicAdapterModel<double>> model;

  Blocks() {
    for (Index l = 0; l < 3; ++l)
      sites.emplace_back(graft::concat("bert.encoder.layer.", l), 4, graft::HiddenRole::block);
    for (auto& site : sites) table.hidden.push_back(&site);
    table.info.layers = 3;
    registry.add(graft::MethodList<graft::IAAMethod<double>>{});
    model = std::make_unique<graft::BasicAdapterModel<double>>(table, registry);
    model->add("a", graft::IAAConfig{.aside_dim = 2}, 3);
  }
  graft::BasicParameter<double> tensor(const std::string& key) const {
    for (const auto& [name, t] : model->at("a").tensors())
      if (name == "base_model.model.bert." + key) return t.parameter;
    FAIL("no tensor " << key);
    return {};
  }
  graft::BasicVar<double> run(graft::BasicVar<double> x, bool cut = false) const {
    for (const auto& site : sites) {
      const auto y = tanh(x);
      x = site(x, cut ? y.detach() : y);
    }
    return x;
  }
};

}  // namespace

TEST_CASE("IAA begins as the identity, counts and differentiates") {
  Blocks net;
  const auto start = checks::random_tensor<double>({5, 4}, 4);
  graft::BasicTape<double> tape;
  const auto x = tape.constant(start);
  CHECK(checks::relative_error(net.run(x).value(), tanh(tanh(tanh(x))).value()) == 0);
  CHECK(net.model->at("a").trainable_elements() == 4 * (4 * 2 + 2) + 3 * (4 * 2 + 4));
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(start.clone())};
  unsigned seed = 5;
  for (const auto& p : net.model->at("a").parameters()) {
    p.assign(checks::random_tensor<double>(p.shape(), seed++, 0.5));
    parameters.push_back(p);
  }
  const auto weights = checks::random_tensor<double>({5, 4}, 6);
  const auto check = graft::gradient_check(
      [&](graft::BasicTape<double>& again) {
        return sum(mul(net.run(again.parameter(parameters[0])), again.constant(weights)));
      },
      parameters);
  CHECK(check.relative_error < 1e-7);
}

TEST_CASE("the aside modules carry a gradient past the frozen blocks") {
  Blocks net;
  const auto first = net.tensor("embeddings.aside_down.weight"),
             last = net.tensor("encoder.layer.2.aside_up.weight");
  last.assign(checks::random_tensor<double>(last.shape(), 7));
  graft::BasicTape<double> tape;
  first.zero_grad();
  tape.backward(sum(net.run(tape.constant(checks::random_tensor<double>({5, 4}, 4)), true)));
  REQUIRE(first.grad());
  CHECK(std::any_of(first.grad().begin(), first.grad().end(), [](double g) { return g != 0; }));
}

TEST_CASE("IAA refuses blocks on a tape of their own") {
  Blocks net;
  graft::BasicTape<double> tape, other;
  const auto x =
      net.sites[0](tape.constant(Tensor::ones({2, 4})), tape.constant(Tensor::ones({2, 4})));
  CHECK_THROWS_WITH(net.sites[1](other.constant(x.value()), other.constant(x.value())),
                    Catch::Contains("another tape"));
  CHECK_THROWS_WITH(graft::IAAConfig{.aside_dim = 0}.validate(), Catch::Contains("aside_dim"));
}
