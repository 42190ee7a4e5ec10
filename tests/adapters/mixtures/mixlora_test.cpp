#include "graft/adapters/mixtures/mixlora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/compose/adapter_model.hpp"

using graft::BasicTape;
using graft::BasicTensor;
using graft::BasicVar;
using graft::Index;

namespace {

const graft::MethodRegistry<double>& registry() {
  static const auto instance = [] {
    graft::MethodRegistry<double> r;
    r.add(graft::MethodList<graft::MixLoRAMethod<double>>{});
    return r;
  }();
  return instance;
}

/// A gated feed-forward block, or one of two layers, behind a projection.
struct Block {
  bool gated;
  graft::BasicLinearSite<double> q, gate, up, down;
  graft::BasicSiteTable<double> table;

  explicit Block(bool with_gate)
      : gated(with_gate),
        q("layers.0.q_proj", checks::random_layer<double>(6, 6, 1)),
        gate("layers.0.mlp.gate_proj", checks::random_layer<double>(9, 6, 3)),
        up(gated ? "layers.0.mlp.up_proj" : "layers.0.mlp.fc1",
           checks::random_layer<double>(9, 6, 5)),
        down(gated ? "layers.0.mlp.down_proj" : "layers.0.mlp.fc2",
             checks::random_layer<double>(6, 9, 7)) {
    table.info.architecture = "toy";
    table.info.layers = 1;
    table.linear = {&q, &up, &down};
    if (gated) table.linear.insert(table.linear.begin() + 1, &gate);
  }
  BasicVar<double> operator()(const BasicVar<double>& x) const {
    const auto h = q(x);
    return down(gated ? mul(silu(gate(h)), up(h)) : silu(up(h)));
  }
  BasicTensor<double> output(const BasicTensor<double>& x) const {
    BasicTape<double> tape({.gradients = false, .training = false});
    return (*this)(tape.constant(x)).value().clone();
  }
};

void disturb(graft::AdapterSet<double>& set, unsigned seed) {
  for (const auto& p : set.parameters())
    p.assign(checks::random_tensor<double>(p.shape(), seed++, 0.4));
}
BasicTensor<double> value(const graft::AdapterSet<double>& set, const std::string& ending) {
  for (const auto& [key, tensor] : set.tensors())
    if (key.ends_with(ending)) return tensor.parameter.value();
  FAIL("no tensor " << ending);
  return {};
}

}  // namespace

TEST_CASE("MixLoRA begins as the identity, counts, differentiates and does not merge") {
  const auto x = checks::random_tensor<double>({5, 6}, 20);
  for (const bool gated : {true, false}) {
    Block block(gated);
    const auto base = block.output(x);
    graft::BasicAdapterModel<double> model(block.table, registry());
    auto& set = model.add("a", graft::MixLoRAConfig{.num_experts = 3, .rank = 2});
    CHECK(set.trainable_elements() == (gated ? 3 : 2) * 3 * 2 * 15 + 3 * 6 + 2 * 12);
    CHECK(checks::relative_error(block.output(x), base) < 1e-14);
    disturb(set, 30);
    CHECK(checks::relative_error(block.output(x), base) > 1e-3);
    auto parameters = set.parameters();
    parameters.emplace_back(x.clone());
    CHECK(graft::gradient_check(
              [&](BasicTape<double>& tape) {
                const auto y = sum(square(block(tape.parameter(parameters.back()))));
                return add(y, scale(model.auxiliary_loss(tape), 50));
              },
              parameters)
              .relative_error < 1e-6);
    CHECK_THROWS_WITH(model.merge(), Catch::Contains("token"));
    model.activate({});
    CHECK(checks::relative_error(block.output(x), base) == 0);
  }
}

TEST_CASE("an expert of MixLoRA alone is the block with merged LoRAs") {
  Block block(true);
  graft::BasicAdapterModel<double> model(block.table, registry());
  auto& set = model.add("a", graft::MixLoRAConfig{.num_experts = 1, .top_k = 1, .rank = 2});
  disturb(set, 30);
  const auto x = checks::random_tensor<double>({5, 6}, 20);
  const auto found = block.output(x);
  Block merged(true);
  const auto fold = [&](graft::BasicLinearSite<double>& site, const std::string& a,
                        const std::string& b) {
    const Index in = site.in_features(), out = site.out_features();
    auto w = site.base().dense_weight().clone();
    const auto delta = graft::detail::product(value(set, b).reshape({out, 2}),
                                              value(set, a).reshape({2, in}), 2.0);
    for (Index i = 0; i < w.size(); ++i) w[i] += delta[i];
    site.set_base(graft::BasicDenseLinear<double>(w, site.base().bias()));
  };
  fold(merged.q, "q_proj.lora_A.weight", "q_proj.lora_B.weight");
  fold(merged.gate, "gate_proj.lora_A", "gate_proj.lora_B");
  fold(merged.up, "up_proj.lora_A", "up_proj.lora_B");
  fold(merged.down, "down_proj.lora_A", "down_proj.lora_B");
  CHECK(checks::relative_error(found, merged.output(x)) < 1e-13);
}

TEST_CASE("layers of a block without experts of their own take part") {
  Block block(true);
  graft::BasicAdapterModel<double> model(block.table, registry());
  auto& set = model.add(
      "a", graft::MixLoRAConfig{.num_experts = 3, .rank = 2, .target_modules = {"up_proj"}});
  CHECK(set.trainable_elements() == 3 * 2 * 15 + 3 * 6);
  disturb(set, 30);
  const auto x = checks::random_tensor<double>({5, 6}, 20);
  const auto y = block.output(x);
  CHECK(checks::relative_error(block.output(x), y) == 0);
  model.remove("a");
  CHECK(checks::relative_error(block.output(x), y) > 1e-3);
  block.table.linear.pop_back();
  CHECK_THROWS_WITH(model.add("a", graft::MixLoRAConfig{.target_modules = {"up_proj"}}),
                    Catch::Contains("lacks"));
}

TEST_CASE("the changes of two MixLoRAs on one block add up") {
  // With the last layer alone adapted, what the experts add is linear in them.
  Block block(true);
  graft::BasicAdapterModel<double> model(block.table, registry());
  const auto x = checks::random_tensor<double>({5, 6}, 20);
  const auto base = block.output(x);
  std::map<std::string, BasicTensor<double>> change;
  for (const char* name : {"a", "b"}) {
    disturb(model.add(name,
                      graft::MixLoRAConfig{
                          .num_experts = 3, .rank = 2, .target_modules = {"up_proj", "down_proj"}}),
            name[0] == 'a' ? 30 : 40);
    change[name] = block.output(x);
  }
  model.activate({"a", "b"});
  auto sum = base.clone();
  for (Index i = 0; i < sum.size(); ++i) sum[i] = change["a"][i] + change["b"][i] - base[i];
  CHECK(checks::relative_error(block.output(x), sum) < 1e-12);
}

TEST_CASE("jitter moves the router while training only") {
  Block block(false);
  graft::BasicAdapterModel<double> model(block.table, registry());
  disturb(model.add("a", graft::MixLoRAConfig{.num_experts = 3, .rank = 2, .jitter_noise = 0.5}),
          30);
  const auto x = checks::random_tensor<double>({5, 6}, 20);
  const auto train = [&](std::uint64_t seed) {
    BasicTape<double> tape({.gradients = false, .seed = seed});
    return block(tape.constant(x)).value().clone();
  };
  CHECK(checks::relative_error(train(1), train(2)) > 1e-6);
  CHECK(checks::relative_error(train(1), train(1)) == 0);
  CHECK(checks::relative_error(block.output(x), block.output(x)) == 0);

  // Given factors: ones are no jitter, others are the same in every pass.
  const auto give = [&](const graft::BasicTensor<double>& factors) {
    for (const auto& placed : model.at("a").parts())
      if (auto* router = dynamic_cast<graft::MixLoRARouter<double>*>(placed.part.get()))
        router->set_jitter(factors);
  };
  give(graft::BasicTensor<double>::ones({5, 6}));
  CHECK(checks::relative_error(train(1), block.output(x)) == 0);
  give(checks::random_tensor<double>({5, 6}, 21));
  CHECK(checks::relative_error(train(1), train(2)) == 0);
  CHECK(checks::relative_error(train(1), block.output(x)) > 1e-6);
  give(graft::BasicTensor<double>::ones({4, 6}));
  CHECK_THROWS_WITH(train(1), Catch::Contains("24 factors"));
  CHECK_THROWS_WITH((graft::MixLoRAConfig{.routing_strategy = "switch"}.validate()),
                    Catch::Contains("switch"));
}
