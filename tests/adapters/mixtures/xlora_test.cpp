#include "graft/adapters/mixtures/xlora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "adapters/prompts/tiny_llama.hpp"
#include "graft/adapters/low_rank/lora_config.hpp"

using graft::BasicTensor;
using graft::Index;
using graft::XLoRAConfig;

namespace {

graft::LowRankTerm<double> term(unsigned seed) {
  return {graft::BasicParameter<double>(checks::random_tensor<double>({2, 6}, seed)),
          graft::BasicParameter<double>(checks::random_tensor<double>({5, 2}, seed + 100)), 0.5};
}

}  // namespace

TEST_CASE("X-LoRA mixes its experts by the classifier, cut to the largest where asked for") {
  const graft::BasicAnyLinear<double> base{checks::random_layer<double>(5, 6, 1)};
  const auto x = checks::random_tensor<double>({3, 6}, 2),
             hidden = checks::random_tensor<double>({3, 4}, 3);
  for (const bool cut : {false, true}) {
    XLoRAConfig config{.layerwise_scalings = true, .depth = 2, .size = 7, .dropout = 0};
    config.global_scaling_weight = 3;
    if (cut) {
      config.top_k_lora = 2;
      config.enable_softmax_topk = true;
    }
    const auto scalings = std::make_shared<graft::XLoRAScalings<double>>();
    graft::StandaloneInit<double> init(5);
    graft::XLoRAClassifier<double> classifier(config, 3, 2, 4, init.context(), scalings);
    CHECK(graft::trainable_elements(classifier.tensors()) == 7 * 4 + 7 + 6 * 7 + 6);
    const std::vector<graft::XLoRALinear<double>::Expert> experts{
        {"0", term(1)}, {"1", term(2)}, {"2", term(3)}};
    graft::XLoRALinear<double> part(config, experts, 1, scalings);
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    classifier.before(tape, [&](graft::BasicTape<double>&) {
      CHECK(scalings->first_pass);
      // In the first pass the experts are scaled by zero.
      graft::BasicTape<double> quiet({.gradients = false});
      CHECK(checks::relative_error(
                part.apply(graft::BasicLinearView<double>(base, {}), quiet.constant(x)).value(),
                linear(base, quiet.constant(x)).value()) == 0);
      return hidden;
    });
    const auto y = part.apply(graft::BasicLinearView<double>(base, {}), tape.constant(x)).value();
    auto expected = linear(base, tape.constant(x)).value().clone();
    for (Index t = 0; t < 3; ++t) {
      std::vector<double> w(3);
      for (Index e = 0; e < 3; ++e)
        w[static_cast<std::size_t>(e)] = scalings->values.value()(t, 3 + e);
      CHECK(w[0] + w[1] + w[2] == Approx(1));
      if (cut) {
        const auto least = std::min_element(w.begin(), w.end());
        double total = 0;
        for (double& v : w) total += v == *least ? 0 : std::exp(v);
        const double lowest = *least;
        for (double& v : w) v = v == lowest ? 0 : std::exp(v) / total;
      }
      for (Index e = 0; e < 3; ++e) {
        const auto& one = *experts[static_cast<std::size_t>(e)].second;
        for (Index k = 0; k < 2; ++k) {
          const double h = graft::kernels::dot(x.data() + t * 6, one.a.value().data() + k * 6, 6);
          for (Index o = 0; o < 5; ++o)
            expected(t, o) += 1.5 * w[static_cast<std::size_t>(e)] * h * one.b.value()(o, k);
        }
      }
    }
    CHECK(checks::relative_error(y, expected) < 1e-12);
    CHECK_FALSE(part.merge_reason().empty());
  }
}

TEST_CASE("Experts of an embedding are mixed token by token too") {
  const graft::BasicEmbeddingTable<double> table(checks::random_tensor<double>({9, 5}, 1));
  const auto scalings = std::make_shared<graft::XLoRAScalings<double>>();
  const auto expert = [](unsigned seed) {
    return graft::LowRankTerm<double>{
        graft::BasicParameter<double>(checks::random_tensor<double>({2, 9}, seed)),
        graft::BasicParameter<double>(checks::random_tensor<double>({5, 2}, seed + 100)), 0.5};
  };
  XLoRAConfig config{.use_trainable_adapters = true};
  config.global_scaling_weight = 3;
  const std::vector<graft::XLoRAExpert<double>> experts{
      {"0", expert(1)}, {"1", std::nullopt}, {"2", expert(3)}};
  const graft::XLoRAEmbedding<double> part(config, experts, 1, scalings);
  const std::vector<std::int32_t> ids{4, 0, 8, 4};
  const auto w = checks::random_tensor<double>({4, 6}, 7);
  const auto run = [&](graft::BasicTape<double>& tape) {
    scalings->values = tape.constant(w);
    return part.apply(graft::BasicEmbeddingView<double>(table, {}), tape, ids);
  };
  graft::BasicTape<double> tape({.gradients = false, .training = false});
  const auto y = run(tape).value();
  for (Index t = 0; t < 4; ++t)
    for (Index o = 0; o < 5; ++o) {
      double expected = table.dense()(ids[static_cast<std::size_t>(t)], o);
      for (const Index e : {0, 2}) {
        const auto& one = *experts[static_cast<std::size_t>(e)].second;
        for (Index k = 0; k < 2; ++k)
          expected += 1.5 * w(t, 3 + e) * one.b.value()(o, k) *
                      one.a.value()(k, ids[static_cast<std::size_t>(t)]);
      }
      CHECK(y(t, o) == Approx(expected));
    }
  std::vector<graft::BasicParameter<double>> trained;
  for (const auto& tensor : part.tensors()) trained.push_back(tensor.parameter);
  REQUIRE(trained.size() == 4);
  const auto weights = checks::random_tensor<double>({4, 5}, 9);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& t) { return sum(mul(run(t), t.constant(weights))); },
            trained)
            .relative_error < 1e-8);
}

TEST_CASE("experts with numbers for names keep the order of the numbers") {
  XLoRAConfig config;
  for (const char* name : {"10", "2", "0"}) config.adapters[name] = name;
  CHECK(graft::XLoRAMethod<float>::expert_names(config) ==
        std::vector<std::string>{"0", "2", "10"});
}

TEST_CASE("a site without a first pass says so") {
  const graft::BasicAnyLinear<double> base{checks::random_layer<double>(5, 6, 1)};
  graft::XLoRALinear<double> part({}, {{"0", term(1)}}, 0,
                                  std::make_shared<graft::XLoRAScalings<double>>());
  graft::BasicTape<double> tape;
  CHECK_THROWS_WITH(part.apply(graft::BasicLinearView<double>(base, {}),
                               tape.constant(checks::random_tensor<double>({2, 6}, 1))),
                    Catch::Contains("first pass"));
}

TEST_CASE("X-LoRA takes the hidden size from the model where it is not given") {
  graft::ConfigValue::Map fresh;
  graft::ConfigWriter writer(fresh);
  XLoRAConfig().fields(writer);
  CHECK(fresh.at("hidden_size").is_null());
  for (const auto& size : {std::optional<Index>(), std::optional<Index>(prompts::kWidth)}) {
    graft::models::BasicLlama<double> model(prompts::llama(), prompts::RandomWeights<double>());
    graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
    adapters.add("0", graft::LoRAConfig{.rank = 2, .target_modules = {"q_proj"}}, 1);
    XLoRAConfig config;
    config.hidden_size = size;
    config.adapters = {{"0", "experts/0"}};
    const auto& set = adapters.add("mixed", config, 2);
    CHECK(*set.config().at("hidden_size").get_if<std::int64_t>() == prompts::kWidth);
    CHECK(*set.config().at("xlora_size").get_if<std::int64_t>() == 2048);
    CHECK(set.trainable_elements() == prompts::kWidth + 1);
  }
}
