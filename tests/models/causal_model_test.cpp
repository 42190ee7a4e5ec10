#include "graft/models/causal_model.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "adapters/prompts/tiny_llama.hpp"
#include "graft/base/profile.hpp"
#include "graft/models/gpt2.hpp"

using graft::Index;

namespace {

/// Gradients of all that a method trains, and the number of products with frozen weights.
struct Pass {
  std::vector<graft::Tensor> gradients;
  Index products = 0;
};

/// Adds an adapter of random values at all layers. `more`: further fields of its configuration.
void add(graft::AdapterModel& adapters, const std::string& method,
         const std::string& name = "default", const graft::ConfigValue::Map& more = {}) {
  graft::TorchGenerator generator(3);
  auto config = adapters.registry().at(method).defaults;
  if (config.contains("target_modules"))
    config["target_modules"] = graft::ConfigValue(std::string("all-linear"));
  if (method == "IA3") {
    config["target_modules"] = graft::ConfigValue(std::string(".*(down_proj|mlp.c_proj)"));
    config["feedforward_modules"] = graft::ConfigValue(graft::ConfigValue::List{});
  }
  for (const auto& [field, value] : more) config[field] = value;
  auto& set = adapters.add(name, config, generator);
  auto seed = static_cast<unsigned>(11 * name.size());
  for (const auto& p : set.parameters())
    p.assign(checks::random_tensor<float>(p.shape(), seed++, 0.1));
}

template <class Adapt>
Pass pass(graft::models::CausalModel& model, const Adapt& adapt, const graft::models::Batch& batch,
          Index recomputed) {
  model.recomputed_blocks = recomputed;
  graft::AdapterModel adapters(model.sites(), graft::all_methods<float>());
  adapt(adapters);
  Pass result;
  graft::Profile profile;
  {
    const auto on = profile.record();
    graft::Tape tape;
    tape.backward(model.loss(tape, batch));
  }
  for (const auto& event : profile.events())
    if (std::strcmp(event.name, "frozen forward") == 0) ++result.products;
  for (const auto& name : adapters.names())
    for (const auto& p : adapters.at(name).parameters())
      if (p.grad()) result.gradients.push_back(p.grad().clone());
  return result;
}

/// Products that recomputing two blocks adds; the gradients must be the same bits.
template <class Adapt>
Index products_again(graft::models::CausalModel& model, const Adapt& adapt,
                     const std::vector<std::string>& row_adapters) {
  auto batch = prompts::Setup<float>::batch();
  batch.row_adapters = row_adapters;
  const auto kept = pass(model, adapt, batch, 0), again = pass(model, adapt, batch, 2);
  REQUIRE(kept.gradients.size() == again.gradients.size());
  for (std::size_t i = 0; i < kept.gradients.size(); ++i)
    CHECK(
        std::equal(kept.gradients[i].begin(), kept.gradients[i].end(), again.gradients[i].begin()));
  return again.products - kept.products;
}
Index products_again(graft::models::CausalModel& model, const char* method,
                     const graft::ConfigValue::Map& more = {}) {
  CAPTURE(method);
  return products_again(model, [&](auto& adapters) { add(adapters, method, "default", more); }, {});
}

}  // namespace

TEST_CASE("A block that runs again leaves out its last product where nothing reads it") {
  graft::models::Llama llama(prompts::llama(), checks::RandomWeights<float>());
  graft::models::Gpt2Config config;
  config.vocabulary = prompts::kVocabulary;
  config.hidden_size = 12;
  config.intermediate_size = 20;
  config.layers = 2;
  config.heads = 3;
  config.max_positions = 16;
  graft::models::Gpt2 gpt2(config, checks::RandomWeights<float>({.biases = true}));
  // The first block's input wants no gradient under LoRA: one block runs again.
  CHECK(products_again(llama, "LORA") == 6);
  CHECK(products_again(gpt2, "LORA") == 3);
  SECTION("which scales of its result and adapters behind it do") {
    CHECK(products_again(llama, "IA3") == 7);
    CHECK(products_again(llama, "HOULSBY") == 7);
    CHECK(products_again(gpt2, "IA3") == 4);
    CHECK(products_again(gpt2, "HOULSBY") == 4);
  }
  SECTION("which trained biases and further LoRAs do not") {
    CHECK(products_again(gpt2, "LORA", {{"bias", "all"}}) == 3);
    const auto two = [](auto& adapters) {
      add(adapters, "LORA");
      add(adapters, "LORA", "other");
      adapters.activate({"default", "other"});
    };
    CHECK(products_again(llama, two, {}) == 6);
    // A product for each of the two.
    CHECK(products_again(llama, two, {"default", "other"}) == 12);
    CHECK(products_again(llama, two, {"other", "__base__"}) == 12);
  }
}
