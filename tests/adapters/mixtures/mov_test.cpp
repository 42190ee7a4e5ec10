#include "graft/adapters/mixtures/mov.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTape;
using graft::Index;

namespace {

using MoV = graft::BasicMoV<double>;

MoV made(const graft::MoVConfig& config, Index width, Index heads,
         MoV::Side side = MoV::Side::output) {
  graft::StandaloneInit<double> init(7);
  return MoV(config, width, heads, init.context(), side);
}

}  // namespace

TEST_CASE("MoV begins as the identity, counts, differentiates and does not merge") {
  const graft::MoVConfig config{.num_experts = 3};
  CHECK(checks::change_at_init<MoV>(config) < 1e-15);
  CHECK(checks::trained<graft::MoV>(config) == 2 * 3 * 10 + 3);
  CHECK(checks::gradient_error<MoV>(config) < 1e-7);
  CHECK_THROWS_WITH(checks::merge_error<graft::MoV>(config), Catch::Contains("token"));
  CHECK(graft::trainable_elements(made(config, 12, 3).tensors()) == 3 * 12 + 3 * 4 + 3);
  CHECK_THROWS_WITH(made(config, 10, 3), Catch::Contains("3 heads"));
}

TEST_CASE("heads share a router and have vectors of their own") {
  const auto mov = made({.num_experts = 3}, 8, 2);
  checks::randomize(mov);
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(checks::random_tensor<double>({2, 3, 8}, 4))};
  for (auto& t : mov.tensors()) parameters.push_back(t.parameter);
  const auto weights = checks::random_tensor<double>({2, 3, 8}, 5);
  CHECK(graft::gradient_check(
            [&](BasicTape<double>& tape) {
              return sum(mul(mov.scaled(tape.parameter(parameters[0])), tape.constant(weights)));
            },
            parameters)
            .relative_error < 1e-7);
  // Equal heads with equal vectors are scaled alike; with others they are not.
  auto x = checks::random_tensor<double>({5, 8}, 6);
  for (Index i = 0; i < 5; ++i) std::copy_n(&x(i, 0), 4, &x(i, 4));
  BasicTape<double> tape({.gradients = false});
  const auto y = mov.scaled(tape.constant(x)).value();
  CHECK(std::abs(y(0, 0) - y(0, 4)) > 1e-6);
  auto v = parameters[1].value().clone();
  std::copy_n(v.data(), 12, v.data() + 12);
  parameters[1].assign(v);
  const auto same = mov.scaled(tape.constant(x)).value();
  for (Index i = 0; i < 4; ++i) CHECK(same(0, i) == Approx(same(0, 4 + i)));
  const auto apart = mov.scaled(tape.constant(x.reshape({5, 2, 4}))).value();
  CHECK(std::equal(apart.begin(), apart.end(), same.begin()));
}

TEST_CASE("one vector is an IA3, at the input or at the output of a layer") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto x = checks::random_tensor<double>({4, 12}, 2);
  const auto mov = made({.num_experts = 1}, 12, 0, MoV::Side::input);
  checks::randomize(mov);
  const auto v = mov.tensors()[0].parameter.value();
  auto scaled = x.clone();
  for (Index i = 0; i < 4; ++i)
    for (Index j = 0; j < 12; ++j) scaled(i, j) *= v[j];
  CHECK(checks::relative_error(checks::output(mov, layer, x), checks::base_output(layer, scaled)) <
        1e-14);
}

TEST_CASE("MoV goes to keys, values and the inner states of feed-forward blocks") {
  using Method = graft::MoVMethod<float>;
  const graft::MoVConfig all;
  CHECK(Method::targets(all, "model.layers.0.self_attn.k_proj"));
  CHECK(Method::targets(all, "model.layers.0.mlp.down_proj"));
  CHECK(Method::targets(all, "bert.encoder.layer.1.output.dense"));
  CHECK_FALSE(Method::targets(all, "bert.encoder.layer.1.attention.output.dense"));
  CHECK_FALSE(Method::targets(all, "model.layers.0.self_attn.q_proj"));
  const graft::MoVConfig inner{.target_modules = {"intermediate"}};
  CHECK(Method::targets(inner, "bert.encoder.layer.1.output.dense"));
  CHECK_FALSE(Method::targets(inner, "bert.encoder.layer.1.attention.self.key"));

  graft::StandaloneInit<float> init(1);
  graft::LinearSiteInfo<float> site;
  site.path = "bert.encoder.layer.1.output.dense";
  site.in_features = 44;
  site.out_features = 32;
  site.model.head_dim = 8;
  const auto down = Method::linear(all, site, init.context())->tensors();
  CHECK(down[0].name == "model.bert.encoder.layer.1.intermediate.mov.weight");
  CHECK(down[0].parameter.shape() == graft::Shape{10, 44});
  site.path = "bert.encoder.layer.1.attention.self.key";
  const auto key = Method::linear(all, site, init.context())->tensors();
  CHECK(key[0].name == "mov.weight");
  CHECK(key[0].parameter.shape() == graft::Shape{4, 10, 8});
}
