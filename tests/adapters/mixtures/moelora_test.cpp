#include "graft/adapters/mixtures/moelora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;

namespace {

using MoELoRA = graft::BasicMoELoRA<double>;

double contrast(const std::vector<double>& outputs, Index width,
                const std::vector<std::int32_t>& group) {
  BasicTape<double> tape;
  const Index n = std::ssize(outputs) / width;
  const auto o = tape.constant(BasicTensor<double>::from(outputs, {n, width}));
  const auto loss = graft::contrastive_loss(div(o, norm_last(o)), group, 0.5);
  return loss ? loss.item() : -1;
}

}  // namespace

TEST_CASE("MoELoRA begins as the identity, counts, differentiates and does not merge") {
  const graft::MoELoRAConfig config{.num_experts = 4, .rank = 3};
  CHECK(checks::change_at_init<MoELoRA>(config) == 0);
  CHECK(checks::trained<graft::MoELoRA>(config) == 4 * (3 * 22 + 12));
  CHECK(checks::gradient_error<MoELoRA>(config) < 1e-6);
  CHECK_THROWS_WITH(checks::merge_error<graft::MoELoRA>(config), Catch::Contains("token"));
}

TEST_CASE("a contrastive loss is small where outputs of one expert are alike") {
  const std::vector<double> apart = {1, 0, 1, 0, 0, 1, 0, 1}, mixed = {1, 0, 0, 1, 1, 0, 0, 1};
  CHECK(contrast(apart, 2, {0, 0, 1, 1}) == Approx(std::log(1 + 2 * std::exp(-2.0))));
  CHECK(contrast(mixed, 2, {0, 0, 1, 1}) > contrast(apart, 2, {0, 0, 1, 1}));
  // One expert alone has nothing to be apart from, outputs without a partner do not count.
  CHECK(contrast(mixed, 2, {0, 0, 0, 0}) == Approx(0).margin(1e-12));
  CHECK(contrast(mixed, 2, {0, 1, 2, 3}) == -1);
  std::vector<double> longer = apart;
  for (double& v : longer) v *= 7;
  CHECK(contrast(longer, 2, {0, 0, 1, 1}) == Approx(contrast(apart, 2, {0, 0, 1, 1})));
}

TEST_CASE("the losses of MoELoRA differentiate, and begin without the contrast") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const graft::MoELoRAConfig config{.num_experts = 3,
                                    .rank = 2,
                                    .temperature = 0.7,
                                    .contrastive_loss_coef = 2,
                                    .router_aux_loss_coef = 0.5};
  const auto method = checks::make<MoELoRA>(config, checks::site_of(layer));
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(checks::random_tensor<double>({8, 12}, 4))};
  for (auto& t : method.tensors()) parameters.push_back(t.parameter);
  const auto loss = [&](BasicTape<double>& tape) {
    method.apply(layer, tape.parameter(parameters[0]));
    return method.auxiliary_loss(tape);
  };
  {
    BasicTape<double> tape;
    const auto balance = loss(tape);
    tape.backward(balance);
    CHECK(balance.item() >= 0.5 * 2 * 0.99);
    for (const auto& p : parameters)
      if (p.grad())
        for (const double g : p.grad()) CHECK(std::isfinite(g));
  }
  checks::randomize(method);
  CHECK(graft::gradient_check(loss, parameters).relative_error < 1e-6);
  // Some tokens only, in the same loss.
  auto few = config;
  few.contrastive_tokens = 4;
  const auto other = checks::make<MoELoRA>(few, checks::site_of(layer));
  checks::randomize(other);
  BasicTape<double> tape;
  other.apply(layer, tape.parameter(parameters[0]));
  const double part = other.auxiliary_loss(tape).item();
  CHECK(part > 0);
  CHECK(part != loss(tape).item());
  CHECK_THROWS_WITH(graft::MoELoRAConfig{.temperature = 0}.validate(),
                    Catch::Contains("temperature"));
}
