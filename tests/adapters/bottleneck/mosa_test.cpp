#include "graft/adapters/bottleneck/mosa.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/optim/adamw.hpp"

namespace {

using graft::Index;
using MoSA = graft::BasicMoSA<double>;
using Tensor = graft::BasicTensor<double>;

graft::HiddenSiteInfo<double> mosa_site(Index width) {
  graft::HiddenSiteInfo<double> site;
  site.width = width;
  site.role = graft::HiddenRole::feed_forward;
  return site;
}
Tensor mosa_output(const MoSA& adapter, const Tensor& x, bool training = false) {
  graft::BasicTape<double> tape({.gradients = false, .training = training});
  const auto r = tape.constant(x);
  return adapter.apply(r, tape.constant(Tensor::zeros(x.shape())), r).value().clone();
}
graft::AdapterTensor<double> mosa_tensor(const MoSA& adapter, const std::string& name) {
  for (const auto& t : adapter.tensors())
    if (t.name == name) return t;
  FAIL("no tensor " << name);
  return {};
}

}  // namespace

TEST_CASE("the experts of MoSA own the same number of elements each and all of them together") {
  graft::StandaloneInit<double> init(3);
  const MoSA adapter({.adapter_dim = 5, .num_experts = 3}, mosa_site(7), init.context());
  for (const char* name : {"adapter_down.weight_expert", "adapter_up.weight_expert"}) {
    std::vector<Index> owned(3, 0);
    for (const auto e : mosa_tensor(adapter, name).index->values) {
      REQUIRE((e >= 0 && e < 3));
      ++owned[static_cast<std::size_t>(e)];
    }
    // 35 elements in bands of ⌊35 e / 3⌋.
    CHECK(owned == std::vector<Index>{11, 12, 12});
  }
  CHECK(graft::trainable_elements(adapter.tensors()) == 2 * 35 + 3 * (5 + 7) + 2 * 7);
}

TEST_CASE("MoSA begins as the identity and differentiates, merged and with drawn experts") {
  const auto x = checks::random_tensor<double>({2, 3, 7}, 4);
  for (const bool share : {false, true}) {
    graft::StandaloneInit<double> init(3);
    const MoSA adapter({.adapter_dim = 4, .scaling = 0.5, .share_down = share}, mosa_site(7),
                       init.context());
    const auto zero = mosa_output(adapter, x, true);
    CHECK(std::all_of(zero.begin(), zero.end(), [](double v) { return v == 0; }));
    checks::randomize(adapter);
    std::vector<graft::BasicParameter<double>> parameters{graft::BasicParameter<double>(x.clone())};
    for (const auto& t : adapter.tensors())
      if (t.parameter && t.parameter.trainable()) parameters.push_back(t.parameter);
    const auto weights = checks::random_tensor<double>(x.shape(), 6);
    const auto check = graft::gradient_check(
        [&](graft::BasicTape<double>& tape) {
          const auto r = tape.parameter(parameters[0]);
          return sum(mul(adapter.apply(r, r, r), tape.constant(weights)));
        },
        parameters);
    CHECK(check.relative_error < 1e-7);
  }
}

TEST_CASE("with one expert a MoSA pass is the merged adapter, with several it is not") {
  const auto x = checks::random_tensor<double>({4, 6}, 4);
  for (const Index experts : {1, 2}) {
    graft::StandaloneInit<double> init(3);
    const MoSA adapter({.adapter_dim = 3, .num_experts = experts}, mosa_site(6), init.context());
    checks::randomize(adapter);
    CHECK((checks::relative_error(mosa_output(adapter, x, true), mosa_output(adapter, x)) <
           1e-14) == (experts == 1));
  }
}

TEST_CASE("what one expert of MoSA owns does not matter while another one runs") {
  graft::StandaloneInit<double> init(3);
  MoSA adapter({.adapter_dim = 3, .num_experts = 2}, mosa_site(6), init.context());
  checks::randomize(adapter);
  const auto x = checks::random_tensor<double>({4, 6}, 4);
  const auto with = [&](Index expert) {
    adapter.take_next(expert, expert);
    return mosa_output(adapter, x, true);
  };
  const auto first = with(0), second = with(1), merged = mosa_output(adapter, x);
  for (const char* name : {"adapter_down.weight", "adapter_up.weight"}) {
    const auto owners = mosa_tensor(adapter, std::string(name) + "_expert").index;
    auto w = mosa_tensor(adapter, name).parameter.value();
    for (Index i = 0; i < w.size(); ++i)
      if (owners->values[static_cast<std::size_t>(i)] == 1) w[i] += 1;
  }
  CHECK(checks::relative_error(with(0), first) == 0);
  CHECK(checks::relative_error(with(1), second) > 1e-3);
  CHECK(checks::relative_error(mosa_output(adapter, x), merged) > 1e-3);
}

TEST_CASE("a step of MoSA changes what belongs to the experts that ran and nothing else") {
  graft::StandaloneInit<double> init(3);
  MoSA adapter({.adapter_dim = 4, .num_experts = 2}, mosa_site(5), init.context());
  checks::randomize(adapter);
  std::vector<graft::BasicParameter<double>> parameters;
  for (const auto& t : adapter.tensors())
    if (t.parameter && t.parameter.trainable()) parameters.push_back(t.parameter);
  graft::BasicParameterGroup<double> group;
  group.parameters = parameters;
  graft::BasicAdamW<double> optimizer({group}, {.learning_rate = 1e-2, .weight_decay = 0.1});
  graft::MoSAProcedure<double> procedure({&adapter});
  const auto x = checks::random_tensor<double>({6, 5}, 4);
  const auto weight = mosa_tensor(adapter, "adapter_up.weight").parameter,
             bias = mosa_tensor(adapter, "adapter_up.bias").parameter;
  const auto owners = mosa_tensor(adapter, "adapter_up.weight_expert").index;
  // The second step meets the momentum of the first one's expert.
  for (const Index expert : {0, 1}) {
    const auto before = weight.value().clone(), bias_before = bias.value().clone();
    procedure.before_step({});
    optimizer.zero_grad();
    adapter.take_next(expert, expert);
    graft::BasicTape<double> tape;
    const auto r = tape.constant(x);
    tape.backward(sum(square(adapter.apply(r, r, r))));
    procedure.after_backward({});
    optimizer.step();
    procedure.after_step({});
    for (Index i = 0; i < before.size(); ++i)
      CHECK((weight.value()[i] != before[i]) ==
            (owners->values[static_cast<std::size_t>(i)] == expert));
    for (Index i = 0; i < bias_before.size(); ++i)
      CHECK((bias.value()[i] != bias_before[i]) == (i / 5 == expert));
  }
}

TEST_CASE("MoSA refuses what it does not know") {
  CHECK_THROWS_WITH(graft::MoSAConfig{.num_experts = 0}.validate(), Catch::Contains("num_experts"));
  CHECK_THROWS_WITH(graft::MoSAConfig{.merged_bias = "max"}.validate(), Catch::Contains("'max'"));
  graft::StandaloneInit<double> init(3);
  MoSA adapter({.adapter_dim = 3, .num_experts = 2}, mosa_site(4), init.context());
  adapter.take_next(0, 2);
  CHECK_THROWS_WITH(mosa_output(adapter, checks::random_tensor<double>({2, 4}, 1), true),
                    Catch::Contains("of 2"));
}
