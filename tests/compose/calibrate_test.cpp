#include "graft/compose/calibrate.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTensor;
using graft::ConfigValue;
using graft::Index;

namespace {

/// x → a → tanh → b, and c beside a, with a registry that knows LoRA alone.
struct TwoLayers {
  graft::BasicLinearSite<double> a{"first.a", checks::random_layer<double>(8, 10, 1)},
      c{"first.c", checks::random_layer<double>(8, 10, 2)},
      b{"second.b", checks::random_layer<double>(6, 8, 3)};
  graft::BasicSiteTable<double> table;
  graft::MethodRegistry<double> registry;
  graft::BasicAdapterModel<double> model{table, registry};
  std::vector<BasicTensor<double>> batches;

  TwoLayers() {
    table.linear = {&a, &c, &b};
    registry.add(graft::MethodList<graft::LoRAMethod<double>>{});
    for (unsigned i = 0; i < 3; ++i)
      batches.push_back(checks::random_tensor<double>({20, 10}, 10 + i));
  }
  graft::BasicVar<double> output(graft::BasicTape<double>& tape,
                                 const BasicTensor<double>& x) const {
    const auto v = tape.constant(x);
    return b(tanh(graft::add(a(v), c(v))));
  }
  BasicTensor<double> value(const BasicTensor<double>& x) const {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    return output(tape, x).value().clone();
  }
  graft::CalibrationData<double> data() {
    return {.batches = 3, .run = [this](graft::BasicTape<double>& tape, Index i) {
              return mean(square(output(tape, batches[static_cast<std::size_t>(i)])));
            }};
  }
  graft::AdapterSet<double>& add(ConfigValue::Map config) {
    config["peft_type"] = "LORA";
    config["target_modules"] = "all-linear";
    graft::TorchGenerator generator(1);
    return add_calibrated(model, "default", config, generator, data());
  }
};

}  // namespace

TEST_CASE("adapters that come from data leave the model as it is") {
  for (const char* init : {"eva", "corda", "lora_ga"}) {
    TwoLayers m;
    const auto x = checks::random_tensor<double>({7, 10}, 5);
    const auto before = m.value(x);
    const auto weight = m.a.base().dense_weight().clone();
    m.add({{"r", 2},
           {"lora_alpha", 3},
           {"init_lora_weights", init},
           {"eva_config", ConfigValue::Map{{"tau", 0.9}}}});
    INFO(init);
    CHECK(checks::relative_error(m.value(x), before) < 1e-10);
    const double moved = checks::relative_error(m.a.base().dense_weight(), weight);
    CHECK((std::string(init) == "eva") == (moved == 0));
  }
}

TEST_CASE("LoRA-GA's factors are singular vectors of the gradient of the weight") {
  TwoLayers m;
  // The gradient by differences of the mean loss over the batches.
  const auto w = m.b.base().dense_weight().clone();
  const auto bias = m.b.base().bias();
  const auto loss = [&] {
    double total = 0;
    for (const auto& x : m.batches)
      for (const double v : m.value(x)) total += v * v / (20 * 6) / 3;
    return total;
  };
  auto gradient = BasicTensor<double>::empty(w.shape());
  for (Index i = 0; i < w.size(); ++i) {
    double sides[2];
    for (const int side : {0, 1}) {
      auto moved = w.clone();
      moved[i] += side == 0 ? 1e-5 : -1e-5;
      m.b.set_base(graft::BasicDenseLinear<double>(moved, bias));
      sides[side] = loss();
    }
    gradient[i] = (sides[0] - sides[1]) / 2e-5;
  }
  m.b.set_base(graft::BasicDenseLinear<double>(w, bias));
  const auto d = graft::svd(gradient);
  auto& set = m.add({{"r", 2},
                     {"init_lora_weights", "lora_ga"},
                     {"lora_ga_config", ConfigValue::Map{{"scale", "unit"}}}});
  for (const auto& [key, tensor] : set.tensors()) {
    if (key.find("second.b.lora_A") == std::string::npos) continue;
    for (Index k = 0; k < 2; ++k) {
      double cosine = 0;
      for (Index i = 0; i < 8; ++i) cosine += tensor.parameter.value()(k, i) * d.v(i, k);
      CHECK(std::abs(cosine) == Approx(1).epsilon(1e-6));
    }
  }
}

TEST_CASE("EVA shares directions between layers with one input and hands out their ranks") {
  TwoLayers m;
  auto& set = m.add({{"r", 2},
                     {"lora_alpha", 4},
                     {"init_lora_weights", "eva"},
                     {"eva_config", ConfigValue::Map{{"rho", 2.0}, {"tau", 0.9}}}});
  Index total = 0;
  std::map<std::string, BasicTensor<double>> a;
  for (const auto& [key, tensor] : set.tensors())
    if (key.ends_with("lora_A.weight")) {
      a[key] = tensor.parameter.value();
      total += a[key].rows();
    }
  CHECK(total == 6);
  const auto first = a.find("base_model.model.first.a.lora_A.weight"),
             twin = a.find("base_model.model.first.c.lora_A.weight");
  REQUIRE(first != a.end());
  if (twin != a.end()) {
    CHECK(first->second.rows() >= twin->second.rows());
    for (Index i = 0; i < twin->second.size(); ++i) CHECK(first->second[i] == twin->second[i]);
  }
  // alpha follows the rank, so that the scaling stays 2.
  for (const auto& placed : set.parts()) {
    const auto* part = dynamic_cast<const graft::LinearPart<double>*>(placed.part.get());
    CHECK(part->low_rank_term()->scaling == Approx(2));
  }
}

TEST_CASE("inits from data say what they lack") {
  TwoLayers m;
  graft::TorchGenerator generator(1);
  CHECK_THROWS_WITH(
      m.model.add(
          "default",
          {{"peft_type", "LORA"}, {"target_modules", "all-linear"}, {"init_lora_weights", "corda"}},
          generator),
      Catch::Contains("calibration data") && Catch::Contains("add_calibrated"));
  CHECK(m.model.names().empty());
}
