#include "graft/adapters/bottleneck/dyt.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/bottleneck/mosa.hpp"
#include "graft/compose/adapter_model.hpp"

namespace {

using graft::Index;
using DyT = graft::BasicDyT<double>;
using Tensor = graft::BasicTensor<double>;

/// Two feed-forward sublayers h ← h + site(h, tanh(h), h), and their sum over a row as logits.
struct Net {
  graft::BasicHiddenSite<double> first{"layer.0.output", 5, graft::HiddenRole::feed_forward};
  graft::BasicHiddenSite<double> second{"layer.1.output", 5, graft::HiddenRole::feed_forward};
  graft::BasicSiteTable<double> table;
  graft::MethodRegistry<double> registry;
  std::unique_ptr<graft::BasicAdapterModel<double>> model;
  Tensor x = checks::random_tensor<double>({6, 5}, 4);
  std::vector<std::int64_t> labels{1, 4};
  int passes = 0;

  Net() {
    registry.add(graft::MethodList<graft::DyTMethod<double>, graft::MoSAMethod<double>>{});
    table.hidden = {&first, &second};
    model = std::make_unique<graft::BasicAdapterModel<double>>(table, registry);
  }
  graft::BasicVar<double> logits(graft::BasicTape<double>& tape) {
    ++passes;
    auto context = std::make_shared<graft::ForwardContext>();
    context->batch = 2;
    context->seq_len = 3;
    tape.set_context(context);
    auto h = tape.constant(x);
    for (const auto* site : {&first, &second}) h = add(h, (*site)(h, tanh(h), h));
    return sum_axis(reshape(h, {2, 3, 5}), 1);
  }
  graft::BasicVar<double> training_loss(graft::BasicTape<double>& tape) {
    graft::TrainingPasses<double> run;
    run.logits = [&] { return logits(tape); };
    run.loss_of = [&](const graft::BasicVar<double>& y) { return cross_entropy(y, labels); };
    run.loss = [&] { return run.loss_of(run.logits()); };
    return model->training_loss(tape, run);
  }
  template <class Method>
  std::vector<Method*> modules() {
    return graft::methods_of<Method>(model->at("a").parts());
  }
};

graft::HiddenSiteInfo<double> site_of(Index width) {
  graft::HiddenSiteInfo<double> site;
  site.width = width;
  return site;
}

}  // namespace

TEST_CASE("tokens whose gate is shut have the adapter alone, and the first one always runs") {
  graft::StandaloneInit<double> init(3);
  const DyT adapter({.adapter_dim = 2}, site_of(4), init.context());
  checks::randomize(adapter, 1);
  const auto x = checks::random_tensor<double>({12, 4}, 4), y = Tensor::ones({12, 4});
  graft::BasicTape<double> tape({.gradients = false, .training = false});
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 2;
  tape.set_context(context);
  const auto r = tape.constant(x);
  const auto without = adapter.apply(r, tape.constant(Tensor::zeros({12, 4})), r).value();
  const auto with = adapter.apply(r, tape.constant(y), r).value();
  Index open = 0;
  for (Index t = 0; t < 12; ++t) {
    const double m = adapter.token_mask()[t];
    CHECK((m == 0 || m == 1));
    if (t % 6 == 0) CHECK(m == 1);
    open += m > 0 ? 1 : 0;
    for (Index j = 0; j < 4; ++j) CHECK(with(t, j) - without(t, j) == Approx(m));
  }
  CHECK((open > 2 && open < 12));
}

TEST_CASE("the gate learns straight through, and opens with the probability of its logit") {
  graft::StandaloneInit<double> init(3);
  DyT adapter({.adapter_dim = 2, .tau = 2}, site_of(3), init.context());
  checks::randomize(adapter);
  const auto tensors = adapter.tensors();
  const auto gate = tensors[tensors.size() - 2].parameter, bias = tensors.back().parameter;
  const auto x = checks::random_tensor<double>({3, 3}, 4),
             y = checks::random_tensor<double>({3, 3}, 5);
  const auto noise = checks::random_tensor<double>({1, 2}, 6);
  adapter.set_noise(noise);
  graft::BasicTape<double> tape;
  const auto r = tape.constant(x);
  bias.zero_grad();
  tape.backward(sum(adapter.apply(r, tape.constant(y), r)));
  double expected = 0;
  for (Index t = 1; t < 3; ++t) {
    double a = bias.value()[0] + noise[t - 1], total = 0;
    for (Index j = 0; j < 3; ++j) {
      a += x(t, j) * gate.value()[j];
      total += y(t, j);
    }
    const double u = 1 / (1 + std::exp(-a / 2));
    expected += u * (1 - u) / 2 * total;
  }
  CHECK(bias.grad()[0] == Approx(expected));

  adapter.set_noise({});
  gate.assign(Tensor::zeros({1, 3}));
  for (const double logit : {0.0, 2.0}) {
    bias.assign(Tensor::full({1}, logit));
    graft::BasicTape<double> long_tape({.gradients = false});
    const auto many = long_tape.constant(Tensor::zeros({4001, 3}));
    adapter.apply(many, many, many);
    double open = 0;
    for (Index t = 1; t < 4001; ++t) open += adapter.token_mask()[t];
    CHECK(open / 4000 == Approx(1 / (1 + std::exp(-logit))).margin(0.03));
  }
}

TEST_CASE("DyT trains the share of tokens and a second pass in which all run") {
  for (const double kl : {0.0, 0.5}) {
    Net net;
    net.model->add("a", graft::DyTConfig{.adapter_dim = 2, .complete_model_kl = kl}, 3);
    for (auto* module : net.modules<DyT>()) {
      checks::randomize(*module);
      module->set_noise(checks::random_tensor<double>({2, 2}, 7, 3));
    }
    graft::BasicTape<double> tape;
    const auto loss = net.training_loss(tape).item();
    CHECK(net.passes == 2);
    const auto rate = net.model->auxiliary_loss(tape);
    double open = 0;
    graft::BasicTape<double> again;
    const auto gated = net.logits(again);
    for (const auto* module : net.modules<DyT>()) {
      for (const Index t : {1, 2, 4, 5}) open += module->token_mask()[t];
      module->pass()->complete = true;
    }
    const auto all = net.logits(again);
    for (const auto* module : net.modules<DyT>()) module->pass()->complete = false;
    CHECK(rate.item() == Approx(2 * std::pow(open / 8 - 0.5, 2)));
    CHECK(loss ==
          Approx(cross_entropy(gated, net.labels).item() + cross_entropy(all, net.labels).item() +
                 kl * kl_divergence(all, gated).item()));
    CHECK(net.model->auxiliary_loss(tape).operator bool() == false);
  }
}

TEST_CASE("MoSA asks two passes with experts of their own to agree") {
  Net net;
  net.model->add("a",
                 graft::MoSAConfig{.adapter_dim = 2,
                                   .num_experts = 2,
                                   .consistency_weight = 0.5,
                                   .hidden_consistency_weight = 2},
                 3);
  const auto modules = net.modules<graft::BasicMoSA<double>>();
  const auto take = [&](Index pass) {
    for (auto* module : modules) module->take_next(pass, 1 - pass);
  };
  for (auto* module : modules) checks::randomize(*module);
  take(0);
  take(1);
  graft::BasicTape<double> tape;
  const auto loss = net.training_loss(tape).item();
  CHECK(net.passes == 2);
  take(0);
  take(1);
  graft::BasicTape<double> again;
  const auto p = net.logits(again), q = net.logits(again);
  double apart = 0;
  for (auto* module : modules) {
    const auto states = module->take_states();
    REQUIRE(states.size() == 2);
    apart += mse(states[0], states[1]).item() / 2;
  }
  CHECK(apart > 1e-6);
  CHECK(loss ==
        Approx(cross_entropy(p, net.labels).item() +
               0.25 * (kl_divergence(p, q).item() + kl_divergence(q, p).item()) + 2 * apart));
  graft::BasicTape<double> evaluation({.training = false});
  net.passes = 0;
  net.training_loss(evaluation);
  CHECK(net.passes == 1);
}

TEST_CASE("the router of several DyT adapters mixes them for each row of the batch") {
  graft::StandaloneInit<double> init(3);
  const DyT adapter({.adapter_dim = 2, .num_experts = 3}, site_of(4), init.context());
  CHECK(graft::trainable_elements(adapter.tensors()) == 3 * (2 * 8 + 2 + 4) + 3 * 4 + 4 + 1);
  CHECK(adapter.tensors()[0].name == "experts.0.adapter_down.weight");
  CHECK_THROWS_WITH(graft::DyTConfig{.tau = 0}.validate(), Catch::Contains("tau"));
  CHECK_THROWS_WITH(graft::DyTConfig{.token_target_ratio = 2}.validate(),
                    Catch::Contains("token_target_ratio"));
}
