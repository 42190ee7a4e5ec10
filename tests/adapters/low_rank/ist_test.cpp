#include "graft/adapters/low_rank/ist.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;

namespace {

/// One LoRA in each of some layers, and their procedure.
struct Layers {
  graft::BasicDenseLinear<float> layer = checks::random_layer<float>(6, 5, 1);
  graft::BasicAnyLinear<float> base{layer};
  graft::StandaloneInit<float> init{1};
  std::vector<graft::PlacedPart<float>> parts;
  std::unique_ptr<graft::Procedure<float>> procedure;

  Layers(const graft::ISTConfig& config, Index count) {
    for (Index l = 0; l < count; ++l) {
      auto site = checks::site_of(layer, graft::concat("layers.", l, ".proj"));
      auto part = graft::ISTMethod<float>::linear(config, site, init.context());
      for (const auto& t : part->tensors())
        t.parameter.assign(
            checks::random_tensor<float>(t.parameter.shape(), static_cast<unsigned>(l), 0.5));
      parts.push_back({site.path, part});
    }
    procedure = graft::ISTMethod<float>::procedure(config, parts);
  }
  graft::ISTProcedure<float>& ist() {
    return dynamic_cast<graft::ISTProcedure<float>&>(*procedure);
  }
  graft::Tensor output(std::size_t l) const {
    graft::Tape tape({.gradients = false, .training = false});
    const auto x = tape.constant(checks::random_tensor<float>({3, 5}, 9));
    return dynamic_cast<const graft::LinearPart<float>&>(*parts[l].part)
        .apply(graft::BasicLinearView<float>(base, {}), x)
        .value();
  }
  std::vector<Index> learning() const {
    std::vector<Index> list;
    for (std::size_t l = 0; l < parts.size(); ++l)
      if (graft::trainable_elements(parts[l].part->tensors()) > 0)
        list.push_back(static_cast<Index>(l));
    return list;
  }
};

}  // namespace

TEST_CASE("IST lets the layers of a step learn and gives them back") {
  graft::ISTConfig config;
  config.rank = 2;
  config.n_layers_updated = 3;
  Layers layers(config, 8);
  for (Index step = 1; step <= 4; ++step) {
    layers.procedure->before_step({step, 4, 0.1});
    CHECK(layers.learning().size() == 3);
    layers.procedure->after_step({step, 4, 0.1});
    CHECK(layers.learning().size() == 8);
  }
  config.active_layers = {{1, 5}, {0}};
  Layers given(config, 8);
  given.procedure->before_step({3, 4, 0.1});
  CHECK(given.learning() == std::vector<Index>{1, 5});
  config.active_layers = {{8}};
  Layers wrong(config, 8);
  CHECK_THROWS_WITH(wrong.procedure->before_step({1, 4, 0.1}), Catch::Contains("layer 8"));
}

TEST_CASE("IST turns layers down while it looks, and scores by the losses") {
  graft::ISTConfig config;
  config.rank = 2;
  config.update_importance_interval_steps = 2;
  Layers layers(config, 4);
  std::vector<graft::Tensor> before;
  for (std::size_t l = 0; l < 4; ++l) before.push_back(layers.output(l));
  Index evaluations = 0;
  graft::StepInfo info{1, 4, 0.1};
  info.loss = [&] {
    Index changed = 0;
    for (std::size_t l = 0; l < 4; ++l)
      changed += checks::relative_error(layers.output(l), before[l]) > 1e-3 ? 1 : 0;
    CHECK(changed == 2);
    ++evaluations;
    // Layer 0 is the only one that counts.
    return checks::relative_error(layers.output(0), before[0]);
  };
  layers.procedure->before_step(info);
  CHECK(evaluations == 0);
  for (info.step = 2; info.step <= 40; info.step += 2) layers.procedure->before_step(info);
  CHECK(evaluations == 3 * 20);
  const auto& scores = layers.ist().scores().scores();
  for (std::size_t l = 1; l < 4; ++l) CHECK(scores[0] < scores[l]);
  for (std::size_t l = 0; l < 4; ++l)
    CHECK(checks::relative_error(layers.output(l), before[l]) == 0);

  Layers other(config, 4);
  other.procedure->set_state(layers.procedure->state());
  CHECK(other.ist().scores().scores() == scores);
}

TEST_CASE("a suppressed adapter has a share of its effect") {
  graft::ISTConfig config;
  config.rank = 2;
  config.response_suppression_factor = 0.25;
  config.suppressed_layers = {{0}};
  Layers layers(config, 1);
  const auto full = layers.output(0);
  const auto base = checks::base_output(layers.layer, checks::random_tensor<float>({3, 5}, 9));
  layers.ist().measure([&] {
    const auto less = layers.output(0);
    for (Index i = 0; i < full.size(); ++i)
      CHECK(less[i] - base[i] == Approx(0.25 * (full[i] - base[i])).margin(1e-5));
    return 1.0;
  });
}
